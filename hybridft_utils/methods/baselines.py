"""Methods that add nothing and train the model's own parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import InputError
from .architectures import join
from .parts import Host, Method, check_number, check_whole


def inner_names(host: Host) -> list[str]:
    """Parameters of the inner model, seen from the root."""
    return [join(host.inner_path, name) for name, _ in host.inner.named_parameters()]


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

    def __post_init__(self) -> None:
        check_number("layer_decay", self.layer_decay, lambda d: 0 < d <= 1, "a number above 0 and at most 1")
        check_whole("freeze_layers", self.freeze_layers, least=0)

    def base_parameters(self, host: Host) -> dict[str, float]:
        layers = list(host.layer_paths())
        if self.freeze_layers > len(layers):
            raise InputError("freeze_layers", self.freeze_layers, f"at most the model's {len(layers)} layers")
        top = [join(host.inner_path, name) for name in host.architecture.after_layers]
        inner = set(inner_names(host))
        factors = {}
        for name, _ in host.root.named_parameters():
            # Depth 0 is the embeddings, depth i layer i; what is above the layers has the full rate.
            depth = next((i for i, layer in enumerate(layers, start=1) if name.startswith(f"{layer}.")), 0)
            if depth == 0 and (name not in inner or name.startswith(tuple(f"{n}." for n in top))):
                factors[name] = 1.0
            elif depth > self.freeze_layers or not self.freeze_layers:
                factors[name] = self.layer_decay ** (len(layers) - depth)
        return factors


@dataclass(frozen=True)
class HeadOnly(Method):
    """Train only what lies outside the inner model: a classification head."""

    kind: ClassVar[str] = "head"

    def base_parameters(self, host: Host) -> dict[str, float]:
        inner = set(inner_names(host))
        found = {n: 1.0 for n, _ in host.root.named_parameters() if n not in inner}
        if not found:
            raise InputError("methods", "HeadOnly()", "a model with a head of its own (HeadClassifier, say)")
        return found


@dataclass(frozen=True)
class BitFit(Method):
    """Train only the bias vectors (Ben Zaken et al. 2022)."""

    kind: ClassVar[str] = "bitfit"

    def base_parameters(self, host: Host) -> dict[str, float]:
        found = {n: 1.0 for n in inner_names(host) if n.endswith("bias")}
        if not found:
            raise InputError(
                "methods", "BitFit()", f"a model with biases; {type(host.model).__name__} has none"
            )
        return found
