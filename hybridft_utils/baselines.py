"""Methods that add nothing and train the model's own parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .architectures import join
from .errors import InputError
from .methods import Host, Method


def inner_names(host: Host) -> dict[str, str]:
    """Parameters of the inner model: name seen from the root, by name seen from the inner model."""
    return {join(host.inner_path, n): n for n, _ in host.inner.named_parameters()}


@dataclass(frozen=True)
class FullFineTuning(Method):
    """Train every parameter.

    ``layer_decay`` multiplies the learning rate once for every layer further from the top
    (discriminative learning rates, Howard and Ruder 2018); ``freeze_layers`` keeps the embeddings
    and that many layers from below as they are.
    """

    layer_decay: float = 1.0
    freeze_layers: int = 0
    kind: ClassVar[str] = "full"
    trains_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise InputError("layer_decay", self.layer_decay, "a number above 0 and at most 1")
        if not isinstance(self.freeze_layers, int) or self.freeze_layers < 0:
            raise InputError("freeze_layers", self.freeze_layers, "a whole number of at least 0")

    def base_parameters(self, host: Host) -> dict[str, float]:
        layers = list(host.layer_paths())
        if self.freeze_layers > len(layers):
            raise InputError("freeze_layers", self.freeze_layers, f"at most the model's {len(layers)} layers")
        inner, factors = inner_names(host), {}
        first = inner_names(host).keys() - {
            n for n in inner if any(n.startswith(f"{layer}.") for layer in layers)
        }
        after_layers = {"norm", "ln_f", "pooler"}  # follow the last layer, so belong to the top
        for name, _ in host.root.named_parameters():
            factor = 1.0
            if name in first and inner[name].split(".")[0] not in after_layers:
                if self.freeze_layers:
                    continue
                factor = self.layer_decay ** len(layers)
            for depth, layer in enumerate(layers):
                if name.startswith(f"{layer}."):
                    factor = self.layer_decay ** (len(layers) - 1 - depth)
                    factor = 0.0 if depth < self.freeze_layers else factor
            if factor:
                factors[name] = factor
        return factors


@dataclass(frozen=True)
class HeadOnly(Method):
    """Train only what lies outside the inner model: a classification head."""

    kind: ClassVar[str] = "head"
    trains_base: ClassVar[bool] = True

    def base_parameters(self, host: Host) -> dict[str, float]:
        inner = inner_names(host)
        found = {n: 1.0 for n, _ in host.root.named_parameters() if n not in inner}
        if not found:
            raise InputError("methods", "HeadOnly()", "a model with a head of its own (HeadClassifier, say)")
        return found


@dataclass(frozen=True)
class BitFit(Method):
    """Train only the bias vectors (Ben Zaken et al. 2022)."""

    kind: ClassVar[str] = "bitfit"
    trains_base: ClassVar[bool] = True

    def base_parameters(self, host: Host) -> dict[str, float]:
        found = {n: 1.0 for n in inner_names(host) if n.endswith("bias")}
        if not found:
            raise InputError("methods", "BitFit()", f"a model with biases; {type(host.model).__name__} has none")
        return found
