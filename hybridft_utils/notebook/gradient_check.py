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
    differences = x.new_zeros(x.numel())
    with torch.no_grad():
        for i in range(x.numel()):
            shift = x.new_zeros(x.numel())
            shift[i] = step
            shift = shift.view_as(x)
            differences[i] = (function(x + shift) - function(x - shift)) / (2 * step)
    if derived.shape != x.shape:
        raise AssertionError(f"derived gradient has shape {tuple(derived.shape)}, want {tuple(x.shape)}")
    witnesses = {"autograd": (autograd, 1e-10), "differences": (differences, 1e-6)}
    scale, errors = autograd.abs().max().clamp_min(1e-12), {}
    for name, (witness, limit) in witnesses.items():
        gap = derived.detach().double() - witness.view_as(x)
        errors[name] = (gap.abs().max() / scale).item()
        if not errors[name] <= limit:  # so that NaN fails, too
            raise AssertionError(f"derived gradient differs from {name} by {errors[name]:.1e} relative")
    return errors
