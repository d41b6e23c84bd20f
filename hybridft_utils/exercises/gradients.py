"""Exercises on gradients that the reader derives by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .answers import Wrong, call, check, tensor


def cross_entropy_gradient(mine: Any) -> None:
    """``mine(z: (batch, V), y: (batch,)) -> (batch, V)``: the gradient by the logits z of the mean loss.

    The loss is the mean over the batch of the cross-entropy of softmax(z) with the true classes y, in nats.
    """
    z, y = torch.randn(4, 5), torch.tensor([0, 3, 4, 3])
    p, one_hot = z.softmax(1), F.one_hot(y, 5).float()
    right = (p - one_hot) / 4
    mistakes = {
        "this is the gradient of the sum; divide by the size of the batch for the mean": p - one_hot,
        "the sign is turned round": -right,
        "the sign is turned round, and this is the sum, not the mean": one_hot - p,
        "the one-hot vector of the true class is missing": p / 4,
        "these are the probabilities": p,
        "the softmax goes over the batch; each row of z is one example": (z.softmax(0) - one_hot) / 4,
        "the mean goes over all entries; divide by the batch alone": right / 5,
        "the logits stand where their softmax belongs": (z - one_hot) / 4,
        "these are the losses' derivatives by the probabilities, not by the logits": -one_hot / p / 4,
    }
    check(mine, {"z": z, "y": y}, right, mistakes)

    large = torch.tensor([[1000.0, 0.0], [0.0, -1000.0]])
    case = "for logits as large as 1000"
    try:
        found = call(mine, {"z": large, "y": torch.tensor([1, 0])}, tensor((2, 2)), case)
    except Wrong as wrong:
        if "NaN" in str(wrong):
            raise Wrong(f"{wrong}: the exponential overflows; subtract each row's maximum first") from None
        raise
    if (found - torch.tensor([[0.5, -0.5], [0.0, 0.0]])).abs().max() > 1e-6:
        raise Wrong(f"{case} it returns {found.tolist()}")
