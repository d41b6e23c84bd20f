"""Check a hand-derived gradient against autograd and central differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def check_gradient(
    function: Callable[[Tensor], Tensor], point: Tensor, derived: Tensor, *, step: float = 1e-6
) -> dict[str, float]:
    """Compare ``derived`` with autograd and with central differences at ``point``.

    ``function`` maps a tensor shaped like ``point`` to a scalar.  Everything is computed in float64.
    Returns the largest error of each, relative to the largest entry of the gradient, as
    ``{"autograd": ..., "differences": ...}``.

    Raises ``AssertionError`` if autograd differs by more than 1e-10, if the differences do by more than
    1e-6, or if either comparison yields NaN.  Central differences with step h err by
    O(h^2) + O(1e-16 / h).
    """
    x = point.detach().double().clone().requires_grad_()
    (autograd,) = torch.autograd.grad(function(x), x)
    differences = torch.zeros_like(x).flatten()
    flat = x.detach().flatten()
    for i in range(flat.numel()):
        above, below = flat.clone(), flat.clone()
        above[i] += step
        below[i] -= step
        with torch.no_grad():
            rise = function(above.view_as(x)) - function(below.view_as(x))
        differences[i] = rise / (2 * step)
    derived = derived.detach().double()
    if derived.shape != x.shape:
        raise AssertionError(f"derived gradient has shape {tuple(derived.shape)}, want {tuple(x.shape)}")
    scale = autograd.abs().max().clamp_min(1e-12)
    errors = {
        "autograd": ((derived - autograd).abs().max() / scale).item(),
        "differences": ((derived - differences.view_as(x)).abs().max() / scale).item(),
    }
    for (name, error), limit in zip(errors.items(), (1e-10, 1e-6), strict=True):
        if not error <= limit:  # so that NaN fails, too
            raise AssertionError(f"derived gradient differs from {name} by {error:.1e} relative")
    return errors
