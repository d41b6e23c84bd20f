"""Linear layers in single precision by oneDNN on processors with AVX-512.

PyTorch leaves these products to MKL, which does not use the whole width of every such processor.  oneDNN, which
PyTorch brings as well and takes for bfloat16, does.  The precision is the same; sums are in another order.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import register_flop_formula

WIDE = torch.backends.cpu.get_cpu_capability() == "AVX512"
#: Below, oneDNN's work per call outweighs what it saves.
FEWEST_ROWS = 32
onednn_linear = torch.ops.mkldnn._linear_pointwise


@register_flop_formula(onednn_linear)
def flops(x: Size, weight: Size, *_: Any, **__: Any) -> int:
    """Multiplications and additions, as PyTorch's counter has them for its own products."""
    return 2 * prod(x) * weight[0]


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes this product: many rows in single precision on such a processor."""
    return (
        WIDE
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and prod(x.shape[:-1]) >= FEWEST_ROWS
        and not torch.is_autocast_enabled("cpu")
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` without a gradient: ``x`` (..., in), ``weight`` (out, in), ``bias`` (out,)."""
    if fits(x, weight):
        return onednn_linear(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


class Linear(torch.autograd.Function):
    """``F.linear`` with :func:`product` in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # A frozen weight's gradient is not asked for, so its input need not be kept.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor):
        x, weight = ctx.saved_tensors
        need_x, need_weight, *need_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            product(grad, weight.T) if need_x else None,
            product(rows.T, x.flatten(0, -2).T) if need_weight else None,
            *(rows.sum(0) if need else None for need in need_bias),
        )


def fast_linear(rows: int) -> AbstractContextManager[object]:
    """:class:`FastLinear` where it has something to do for inputs of ``rows`` rows, since it costs some time."""
    return FastLinear() if WIDE and rows >= FEWEST_ROWS else nullcontext()


class FastLinear(TorchFunctionMode):
    """Inside the ``with`` block linear layers and Conv1D are computed by :class:`Linear` where oneDNN takes them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.linear and not kwargs and fits(*args[:2]):
            return Linear.apply(*args)
        if function is torch.addmm and not kwargs and fits(*args[1:]):  # transformers' Conv1D
            bias, x, weight = args
            return Linear.apply(x, weight.T, bias)
        return function(*args, **(kwargs or {}))
