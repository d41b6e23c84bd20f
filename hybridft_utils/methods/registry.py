"""Every method by its kind, and methods as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .adapter import Adapter
from .baselines import BitFit, FullFineTuning, HeadOnly
from .lora import LoRA
from .parts import Method
from .prefix import Prefix
from .soft_prompt import SoftPrompt

#: Parts are put into a model in this order: LoRA first, so that the others see its layers.
METHODS: dict[str, type[Method]] = {
    m.kind: m for m in (LoRA, Prefix, SoftPrompt, Adapter, FullFineTuning, HeadOnly, BitFit)
}

#: Settings that saved tunings once did not name, and which all of them had.
UNSAID = {Prefix.kind: {"softmax": "joint"}}


def as_entries(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Kind and settings of each method, as JSON can hold them."""
    return [{"kind": m.kind, **asdict(m)} for m in methods]  # type: ignore[call-overload]


def from_entries(entries: Sequence[dict[str, Any]]) -> list[Method]:
    """The methods that :func:`as_entries` described; what it once did not say is as it then was."""
    settings = [{**UNSAID.get(e["kind"], {}), **e} for e in entries]
    return [METHODS[e.pop("kind")](**e) for e in settings]
