r"""LoRA: a trained low-rank matrix beside a frozen one (Hu et al. 2022).

.. math:: y = W x + b + \frac{\alpha}{r} B A x,
   \qquad A \in \mathbb{R}^{r \times d_{in}},\; B \in \mathbb{R}^{d_{out} \times r}

B starts at zero, so the tuned model starts as the base model; A must not start at zero as well, or neither
would ever move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from .architectures import ends_with, join
from .low_rank import LowRankUpdate
from .parts import Gate, Host, Method, Part, check_choice, check_number, check_whole, place

#: Names for several layers at once.
GROUPS = "'attention', 'query-value', 'mlp', 'all-linear'"


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
        low = F.linear(self.dropout(x.to(self.lora_A.dtype)), self.lora_A) * self.scaling
        update = F.linear(low, self.lora_B)
        if self.gate is not None:
            update = self.gate(x) * update
        return y + update.to(y.dtype)

    def delta(self) -> Tensor:
        """The update of the weight matrix, (out, in)."""
        return self.scaling * self.lora_B @ self.lora_A

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base's weight."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        delta = self.delta().T if isinstance(self.base, Conv1D) else self.delta()
        weight.copy_(weight.to(delta.dtype) + delta)


class FusedLoRALinear(LoRALinear):
    """:class:`LoRALinear` as one operation (:mod:`hybridft_utils.methods.low_rank`) where possible."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.fusible(x):
            return super().forward(x)
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        weight = weight.T if isinstance(self.base, Conv1D) else weight
        bias: Tensor | None = self.base.bias  # type: ignore[assignment]
        return LowRankUpdate.apply(x, weight, bias, self.lora_A, self.lora_B, self.scaling)

    def fusible(self, x: Tensor) -> bool:
        """Whether base and update can be one product: an ordinary frozen layer, no dropout, no gate."""
        base = self.base
        weight: Tensor = base.weight  # type: ignore[assignment]
        return (
            type(base) in (nn.Linear, Conv1D)
            and not weight.requires_grad
            and not (base._forward_hooks or base._forward_pre_hooks)
            and not (self.training and self.dropout.p)
            and self.gate is None
            and weight.dtype == self.lora_A.dtype
            and (x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type))
        )


def weight_shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer; transformers' Conv1D stores its weight as (in, out)."""
    if isinstance(layer, Conv1D):
        return layer.nf, layer.nx
    return layer.out_features, layer.in_features  # type: ignore[return-value]


def endings(given: object) -> tuple[str, ...]:
    """``given`` as a tuple of endings of module names."""
    if not isinstance(given, list | tuple | set) or not all(isinstance(name, str) for name in given):
        accepted = f"{GROUPS} or a list of endings of module names"
        raise InputError("target_modules", given, accepted)
    return tuple(given)


def pairs(parameter: str, given: object) -> tuple[tuple[str, float], ...]:
    """``given`` as pairs of an ending of module names and its value."""
    try:
        found = tuple(dict(given).items())  # type: ignore[call-overload]
    except (TypeError, ValueError):
        found = ((None, None),)
    if not all(isinstance(name, str) for name, _ in found):
        raise InputError(parameter, given, "a value for each of some endings of module names")
    return found


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank updates of linear layers.

    ``target_modules``: "attention", "mlp", "all-linear" (both), "query-value" (the projections that hold
    these), or endings of module names such as ("q_proj", "v_proj").  ``init`` draws A: "kaiming" as in the reference code, "gaussian" with
    standard deviation 1/rank as in PEFT.  ``rank_pattern`` and ``alpha_pattern`` give single
    modules another rank or alpha: pairs of an ending of the module's name and the value.  Endings
    that name no linear layer, or in a pattern no adapted one, are refused.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    init: Literal["kaiming", "gaussian"] = "kaiming"
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    kind: ClassVar[str] = "lora"

    def __post_init__(self) -> None:
        for name in ("rank_pattern", "alpha_pattern"):
            object.__setattr__(self, name, pairs(name, getattr(self, name)))
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", endings(self.target_modules))
        for rank in (self.rank, *dict(self.rank_pattern).values()):
            check_whole("rank", rank)
        for alpha in (self.alpha, *dict(self.alpha_pattern).values()):
            check_number("alpha", alpha, lambda a: 0 < a < math.inf, "a number above 0")
        check_number("dropout", self.dropout, lambda p: 0 <= p < 1, "a number from 0 up to, not including, 1")
        check_choice("init", self.init, "kaiming", "gaussian")

    def targets(self, host: Host) -> list[str]:
        """Dotted names of the linear layers to adapt, in the model's order."""
        a = host.architecture
        groups = {
            "attention": a.attention_linears,
            "query-value": a.query_value,
            "mlp": a.mlp_linears,
            "all-linear": a.attention_linears + a.mlp_linears,
        }
        if isinstance(self.target_modules, str) and self.target_modules in groups:
            return [join(layer, n) for layer in host.layer_paths() for n in groups[self.target_modules]]
        # A module that two layers share has two names, and is to be found by both.
        modules = host.root.named_modules(remove_duplicate=False)
        wanted = self.target_modules if isinstance(self.target_modules, tuple) else (self.target_modules,)
        linear = [n for n, m in modules if isinstance(m, nn.Linear | Conv1D)]
        for ending in wanted or ("",):
            if not any(ends_with(n, ending) for n in linear):
                names = ", ".join(sorted({n.rsplit(".", 1)[-1] for n in linear}))
                accepted = f"{GROUPS} or endings of module names ({names})"
                raise InputError("target_modules", ending, accepted)
        return [n for n in linear if any(ends_with(n, ending) for ending in wanted)]

    def parts(self, host: Host) -> list[Part]:
        paths = self.targets(host)
        host.check_unshared(paths)
        for name in ("rank_pattern", "alpha_pattern"):
            for ending in dict(getattr(self, name)):
                if not any(ends_with(path, ending) for path in paths):
                    known = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in paths}))
                    raise InputError(name, ending, f"endings of the adapted modules' names ({known})")
        return [self.part(host, path) for path in paths]

    def part(self, host: Host, path: str) -> Part:
        base = host.root.get_submodule(path)
        rank = next((r for ending, r in self.rank_pattern if ends_with(path, ending)), self.rank)
        alpha = next((a for ending, a in self.alpha_pattern if ends_with(path, ending)), self.alpha)
        host.check_width("rank", rank, max(weight_shape(base)))
        layer = FusedLoRALinear(base, rank, alpha, self.dropout)
        if self.init == "gaussian":
            nn.init.normal_(layer.lora_A, std=1 / rank)
        layer.gate = host.gate(weight_shape(base)[1])
        del layer.base  # the frozen weight keeps its precision
        place(layer, base.weight)  # type: ignore[arg-type]
        layer.base = base
        layer.train(base.training)
        return Part(
            method=self.kind,
            name=path,
            module=layer,
            put=lambda: host.root.set_submodule(path, layer),
            take=lambda: host.root.set_submodule(path, base),
            wrapped=base,
        )
