"""Published hybrids as configurations: ``attach(model, *recipe.methods, gating=recipe.gating)``."""

from __future__ import annotations

from typing import NamedTuple

from .adapter import Adapter
from .lora import LoRA
from .parts import Method
from .prefix import Prefix


class Recipe(NamedTuple):
    """Methods that are attached together, and the gating between them."""

    methods: tuple[Method, ...]
    gating: str | None = None


def mam(prefix_length: int = 30, bottleneck: int = 512, scale: float = 4.0) -> Recipe:
    """Mix-and-match adapter (He et al. 2022, section 4.6): a short prefix for attention and a scaled
    parallel adapter for the feed-forward networks, which gain most from capacity.
    """
    return Recipe(
        (Prefix(prefix_length, softmax="joint"), Adapter(bottleneck, placement="parallel", scale=scale))
    )


def unipelt(prefix_length: int = 10, bottleneck: int = 48, rank: int = 8, alpha: float = 16.0) -> Recipe:
    """UniPELT (Mao et al. 2022): LoRA on the query and value projections, a prefix, and one adapter per layer,
    after the feed-forward network.  Each has gates that are learned from the sublayer's input: one per part
    and token here, one per method, layer and text in the paper.
    """
    lora, prefix = LoRA(rank, alpha, target_modules="query-value"), Prefix(prefix_length, softmax="joint")
    return Recipe((lora, prefix, Adapter(bottleneck, "after-mlp")), gating="unipelt")
