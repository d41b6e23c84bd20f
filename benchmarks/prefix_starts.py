"""Where a prefix should start: what was tried on validation, beside LoRA; the test split is not read.

Under one joint softmax fresh keys lose to the sharp patterns of pretrained heads (chapter 07).  Candidates give the
prefix louder keys, of words or of the start token, or a softmax of its own.  There it starts at the base model if its
values are zero, or a gate on them, or if its rows come in pairs of the same key and opposite values.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from hybridft_utils import LoRA, Prefix, load_base
from hybridft_utils.experiments.studies import Point
from hybridft_utils.methods.parts import Host, Part
from hybridft_utils.methods.recorded_keys import record_keys_and_values
from hybridft_utils.models.scoring import start_token

MODEL = "builtin:movies"
SEEDS = range(10, 13)
SETTINGS: dict[str, Any] = {"dataset": "package:vader-movies", "train_size": 512, "precision": "bf16"}


class HeadGate(nn.Module):
    """A number per head, zero at the start, times the values (LLaMA-Adapter, Zhang et al. 2023)."""

    def __init__(self, heads: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, value: Tensor) -> Tensor:
        return self.gate * value


@dataclass(frozen=True)
class Tried(Prefix):
    """A prefix that starts as the package's do not: with ``first``, its first row is the start token's key
    and value; ``keys`` and ``values`` are the standard deviations of the rest; ``zero_gate`` adds a gate per head;
    with ``pairs``, the second half of the rows repeats the keys of the first and negates its values.
    """

    first: bool = False
    keys: float = 0.1
    values: float = 0.1
    zero_gate: bool = False
    pairs: bool = False

    @torch.no_grad()
    def parts(self, host: Host) -> list[Part]:
        parts = super().parts(host)
        token = start_token(load_base(MODEL)[1])
        recorded = record_keys_and_values(host.model, torch.tensor([token]), torch.tensor([0]))
        for part, (key, value) in zip(parts, recorded, strict=True):
            prefix: Any = part.module
            prefix.key.normal_().mul_(self.keys)
            prefix.value.normal_().mul_(self.values)
            if self.first:
                prefix.key[:, :1], prefix.value[:, :1] = key, value
            if self.pairs:
                half = self.length // 2
                prefix.key[:, half:], prefix.value[:, half:] = prefix.key[:, :half], -prefix.value[:, :half]
            if self.zero_gate:
                register_parametrization(prefix, "value", HeadGate(len(prefix.key)))
        return [replace(part) for part in parts]  # which looks for the parameters once more


def grid(label: str, method: LoRA | Prefix, *rates: float, **settings: Any) -> dict[str, Point]:
    """``method`` at each of the ``rates``."""
    return {
        f"{label}, {rate:g}": Point(
            (method,), {**SETTINGS, **settings, "learning_rate": {method.kind: rate}}, test=False
        )
        for rate in rates
    }


LARGE: dict[str, Any] = {"train_size": 1000}

POINTS = {
    **grid("LoRA", LoRA(), 1e-3, 2e-3),
    **grid("joint", Prefix(softmax="joint"), 1e-2, 2e-2, 4e-2, 8e-2),
    **grid("joint, from words", Prefix(softmax="joint", init="vocab"), 2e-2),
    **grid("joint, from the start token", Tried(softmax="joint", first=True), 2e-2),
    **grid("zero gate", Tried(keys=1.0, values=0.3, zero_gate=True), 2e-2, 4e-2),
    **grid("pairs", Tried(values=0.3, pairs=True), 5e-3),
    **grid("separate", Prefix(), 2.5e-3, 5e-3, 1e-2),
    **grid("separate, large keys", Tried(keys=1.0, values=0.0), 5e-3),
    **grid("separate, from words", Prefix(init="vocab"), 5e-3),
    **grid("LoRA, 1000 texts", LoRA(), 1e-3, 2e-3, **LARGE),
    **grid("LoRA on query and value, 1000 texts", LoRA(target_modules="query-value"), 2e-3, 4e-3, **LARGE),
    **grid("joint, 1000 texts", Prefix(softmax="joint"), 2e-2, 4e-2, **LARGE),
    **grid("separate, 1000 texts", Prefix(), 5e-3, 1e-2, **LARGE),
    **grid("separate of 64 rows, 1000 texts", Prefix(64), 5e-3, **LARGE),
}
