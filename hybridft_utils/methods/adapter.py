r"""Bottleneck adapters: a small network after or beside a sublayer (Houlsby et al. 2019).

.. math:: \text{sequential: } y + s\,W_{up}\, f(W_{down}\, y), \qquad
   \text{parallel: } y + s\,W_{up}\, f(W_{down}\, x)

for a sublayer that maps x to y, with :math:`W_{down} \in \mathbb{R}^{m \times d}`.  W_up and its
bias start at zero, so the tuned model starts as the base model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import join
from .parts import Gate, Host, Method, Part, check_choice, check_number, check_whole, first_argument, place


class Bottleneck(nn.Module):
    """``down`` to the bottleneck, a ReLU, ``up`` again; (..., width) to (..., width)."""

    def __init__(self, width: int, bottleneck: int, scale: float = 1.0):
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.gate: Gate | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(F.relu(self.down(x.to(self.down.weight.dtype))))


@dataclass(frozen=True)
class Adapter(Method):
    """Bottleneck adapters of width ``bottleneck``, whose output is multiplied by ``scale``.

    ``placement`` "sequential": after attention and after the feed-forward network, as in
    Houlsby et al. 2019; "after-mlp": after the feed-forward network alone, as in Pfeiffer et al. 2021;
    "parallel": beside the feed-forward network, as in He et al. 2022, where ``scale`` is 4.
    """

    bottleneck: int = 64
    placement: Literal["sequential", "after-mlp", "parallel"] = "sequential"
    scale: float = 1.0
    kind: ClassVar[str] = "adapter"

    def __post_init__(self) -> None:
        check_whole("bottleneck", self.bottleneck)
        check_choice("placement", self.placement, "sequential", "after-mlp", "parallel")
        check_number("scale", self.scale, lambda s: 0 < s < math.inf, "a number above 0")

    def parts(self, host: Host) -> list[Part]:
        a, width = host.architecture, host.model.config.hidden_size
        places = [(a.mlp_input, a.mlp_output)]
        if self.placement == "sequential":
            places.insert(0, (a.attention, a.attention_output))
        host.check_width("bottleneck", self.bottleneck)
        host.check_unshared([join(layer, end) for layer in host.layer_paths() for _, end in places])
        parts = []
        for layer in host.layer_paths():
            for entry, end in places:
                network = Bottleneck(width, self.bottleneck, self.scale)
                network.gate = host.gate(width)
                last = host.root.get_submodule(join(layer, end))
                place(network, next(last.parameters()))
                parts.append(self.part(host.root, join(layer, entry), join(layer, end), network))
        return parts

    def part(self, root: nn.Module, entry: str, end: str, network: Bottleneck) -> Part:
        handles: list[Any] = []
        sublayer_input: list[Tensor] = []

        def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
            sublayer_input[:] = [first_argument(args, kwargs)]

        def leave(module: nn.Module, _args: Any, y: Tensor) -> Tensor:
            # Not ``network`` itself, so that a copy of the model uses its own.
            adapter: Bottleneck = module.adapter  # type: ignore[assignment]
            x = sublayer_input.pop()
            added = adapter(x if self.placement == "parallel" else y)
            if adapter.gate is not None:
                added = adapter.gate(x) * added
            return y + added.to(y.dtype)

        def put() -> None:
            # The modules are looked up here, since LoRA may have wrapped them or been merged.
            last = root.get_submodule(end)
            last.add_module("adapter", network)
            handles.append(root.get_submodule(entry).register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(last.register_forward_hook(leave))

        def take() -> None:
            del root.get_submodule(end)._modules["adapter"]
            while handles:
                handles.pop().remove()

        return Part(self.kind, f"{end}.adapter", network, put, take)
