r"""LoRA: a trained low-rank matrix beside a frozen one (Hu et al. 2022).

.. math:: y = W x + b + \frac{\alpha}{r} B A x,
   \qquad A \in \mathbb{R}^{r \times d_{in}},\; B \in \mathbb{R}^{d_{out} \times r}

B starts at zero, so the tuned model starts as the base model; A must not, or neither ever moves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .architectures import join
from .errors import InputError
from .methods import Gate, Host, Method, Part


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained low-rank matrix beside it.

    ``base`` maps (..., in) to (..., out); ``lora_A`` is (rank, in), ``lora_B`` (out, rank).
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        d_out, d_in = weight_shape(base)
        self.base = base
        self.scaling = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(torch.empty(rank, d_in))
        self.lora_B = nn.Parameter(torch.zeros(d_out, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.gate: Gate | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        low = F.linear(self.dropout(x), self.lora_A) * self.scaling
        update = F.linear(low, self.lora_B)
        return y + update if self.gate is None else y + self.gate(x) * update

    def delta(self) -> Tensor:
        """The update of the weight matrix, (out, in)."""
        return self.scaling * self.lora_B @ self.lora_A

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Add the update to the base's weight and return the base."""
        if self.gate is not None:
            raise InputError("merge()", "gated LoRA", "LoRA without gating: a gate depends on the input")
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        delta = self.delta().to(weight.dtype)
        weight += delta.T if isinstance(self.base, Conv1D) else delta
        return self.base


def weight_shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer; transformers' Conv1D stores its weight as (in, out)."""
    rows, columns = layer.weight.shape  # type: ignore[union-attr, operator]
    return (columns, rows) if isinstance(layer, Conv1D) else (rows, columns)


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank updates of linear layers.

    ``target_modules``: "attention", "mlp", "all-linear" (both), or endings of module names such as
    ("q_proj", "v_proj").  ``init`` draws A: "kaiming" as in the reference code, "gaussian" with
    standard deviation 1/rank as in the paper's text.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    init: Literal["kaiming", "gaussian"] = "kaiming"
    kind: ClassVar[str] = "lora"

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            raise InputError("rank", self.rank, "a whole number of at least 1")
        if not self.alpha > 0:
            raise InputError("alpha", self.alpha, "a number above 0")
        if not 0 <= self.dropout < 1:
            raise InputError("dropout", self.dropout, "a number from 0 up to, not including, 1")
        if self.init not in ("kaiming", "gaussian"):
            raise InputError("init", self.init, "'kaiming' or 'gaussian'")
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))

    def targets(self, host: Host) -> list[str]:
        """Dotted names of the linear layers to adapt, in the model's order."""
        a = host.architecture
        groups = {
            "attention": a.attention_linears,
            "mlp": a.mlp_linears,
            "all-linear": a.attention_linears + a.mlp_linears,
        }
        if isinstance(self.target_modules, str) and self.target_modules in groups:
            return [join(layer, n) for layer in host.layer_paths() for n in groups[self.target_modules]]
        endings = self.target_modules if isinstance(self.target_modules, tuple) else (self.target_modules,)
        linear = [n for n, m in host.root.named_modules() if isinstance(m, nn.Linear | Conv1D)]
        found = [n for n in linear if any(f".{n}".endswith(f".{e}") for e in endings)]
        if not found:
            names = sorted({n.rsplit(".", 1)[-1] for n in linear})
            accepted = f"'attention', 'mlp', 'all-linear' or endings of module names ({', '.join(names)})"
            raise InputError("target_modules", self.target_modules, accepted)
        return found

    def parts(self, host: Host) -> list[Part]:
        parts = []
        for path in self.targets(host):
            base = host.root.get_submodule(path)
            if isinstance(base, LoRALinear):
                raise InputError("methods", f"two LoRAs on {path}", "one LoRA a layer")
            layer = LoRALinear(base, self.rank, self.alpha, self.dropout)
            if self.init == "gaussian":
                nn.init.normal_(layer.lora_A, std=1 / self.rank)
            layer.gate = host.gate(weight_shape(base)[1])
            weight: Tensor = base.weight  # type: ignore[assignment]
            layer.to(weight.device, weight.dtype)
            parts.append(
                Part(
                    method=self.kind,
                    name=path,
                    module=layer,
                    put=lambda path=path, layer=layer: host.root.set_submodule(path, layer),
                    take=lambda path=path, base=base: host.root.set_submodule(path, base),
                )
            )
        return parts
