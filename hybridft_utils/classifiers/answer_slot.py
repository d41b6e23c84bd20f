"""In the last layer only the position whose output is read needs its attention output and feed-forward pass.

Everything before still computes every position, since later layers attend to all of them.  In the last layer
the two linear parts that follow the attention are given the answer's position alone; what they return is
broadcast over the residual stream, so that one position is right and the others, which nothing reads, are
not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..methods.architectures import find_architecture
from ..methods.parts import Gate


@contextmanager
def only_slot_in_last_layer(model: PreTrainedModel, slots: Tensor, tokens: int) -> Iterator[None]:
    """Inside the ``with`` block ``model``'s last layer is right at ``slots`` (batch, 1) of ``tokens`` only.

    A soft prompt moves the slots with the rows it puts in front.  Nothing is left out where more than one
    position is read, under gates, which report a value for every token, and under gradient checkpointing,
    which computes the layer a second time later.
    """
    gated = any(isinstance(m, Gate) for m in model.modules())
    if slots.shape[1] != 1 or gated or checkpointed(model):
        yield
        return
    architecture = find_architecture(model)
    last: nn.Module = model.base_model.get_submodule(architecture.layers)[-1]  # type: ignore[index]

    def keep_slot(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = args
        index = (slots + x.shape[1] - tokens)[..., None].expand(-1, -1, x.shape[-1])
        return (x.gather(1, index), *rest)

    ends = (architecture.attention_output, architecture.mlp_input)
    handles = [last.get_submodule(end).register_forward_pre_hook(keep_slot) for end in ends]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def checkpointed(model: PreTrainedModel) -> bool:
    """Whether layers are computed a second time in the backward pass, where no ``with`` block reaches."""
    return model.training and any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
