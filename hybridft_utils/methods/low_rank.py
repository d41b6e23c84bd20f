r"""A frozen matrix and a low-rank update as one operation: :math:`y = W x + b + s B A x`.

Autograd on the plain formula makes three passes over activations of full width that are not needed: for the
scale, for the sum of both outputs, and for the sum of both input gradients.  Here the scale is folded into a
small product and sums are made where the products are written (compare RunLoRA, Cherniuk et al. 2023).  The
gradient of :math:`W` is never formed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .products import product


class LowRankUpdate(torch.autograd.Function):
    """``x`` (..., in) through ``weight`` (out, in), ``bias`` and the update ``scaling`` * B A.

    ``lora_A`` is (rank, in), ``lora_B`` (out, rank).  Under autocast all products are in its precision,
    as those of ``nn.Linear`` are.  Gradients are those of ``x``, ``lora_A`` and ``lora_B``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_A: Tensor,
        lora_B: Tensor,
        scaling: float,
    ) -> Tensor:
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        ctx.dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
        ctx.scaling = scaling
        rows = x.reshape(-1, x.shape[-1]).to(ctx.dtype)
        ctx.save_for_backward(rows, weight, lora_A, lora_B)
        ctx.given = x.shape, x.dtype
        W, A, B = (t.to(ctx.dtype) for t in (weight, lora_A, lora_B))
        bias = None if bias is None else bias.to(ctx.dtype)
        d_out, d_in = weight.shape
        with torch.autocast(device, enabled=False):
            # Many rows: adding BA to a copy of W is cheaper than two more products with every row.  In half
            # precision the sum would round a small update away.
            if not autocast and len(rows) * (d_out + d_in) > d_out * d_in:
                y = product(rows, torch.addmm(W, B, A, alpha=scaling), bias)
            else:
                y = product(rows, W, bias).addmm_(product(rows, A), B.T, alpha=scaling)
        return y.view(*x.shape[:-1], d_out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor):
        rows, weight, lora_A, lora_B = ctx.saved_tensors
        W, A, B = (t.to(ctx.dtype) for t in (weight, lora_A, lora_B))
        d = grad.reshape(-1, grad.shape[-1]).to(ctx.dtype)
        low = product(d, B.T)
        grad_x = None
        if ctx.needs_input_grad[0]:
            shape, dtype = ctx.given
            grad_x = product(d, W.T).addmm_(low, A, alpha=ctx.scaling).view(shape).to(dtype)
        # With the narrow matrix in front, which MKL computes three to nine times as fast.
        grad_A = (low.T @ rows).to(lora_A.dtype).mul_(ctx.scaling)
        grad_B = (product(rows, A).T @ d).T.to(lora_B.dtype).mul_(ctx.scaling)
        return grad_x, None, None, grad_A, grad_B, None
