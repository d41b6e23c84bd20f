"""Muon: momentum whose step is orthogonalised (Jordan et al. 2024), for weight matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonalise(updates: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices to ``updates`` (count, rows, columns), by Newton-Schulz."""
    x = updates / updates.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """The optimiser, for parameters that are matrices.

    ``torch.optim.Muon`` computes the same in bfloat16, which takes a processor without such arithmetic
    a hundred times longer than float32.  Here, matrices of one shape are also handled in one batch.
    """

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), params in by_shape.items():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    assert p.grad is not None, "Muon needs a gradient for every matrix"
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    update = p.grad.lerp(buffer, group["momentum"])
                    updates.append(update.T if rows > columns else update)
                for p, update in zip(params, orthogonalise(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    scale = max(1.0, rows / columns) ** 0.5
                    p.sub_(update.T if rows > columns else update, alpha=group["lr"] * scale)
