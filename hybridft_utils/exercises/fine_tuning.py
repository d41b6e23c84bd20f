"""The exercise on training: one epoch, written by the reader."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .answers import TOLERANCE, Wrong, call, compare
from .counting import number

Batch = tuple[Tensor, Tensor]
RATE = 0.5


class Moody(nn.Linear):
    """A linear layer that doubles its input in training mode, where dropout would draw at random."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input * 2 if self.training else input)


def epoch(
    model: nn.Module,
    batches: Sequence[Batch],
    training: bool = True,
    clear: bool = True,
    every: int = 1,
    reduction: str = "mean",
) -> tuple[Tensor, list[float]]:
    """The weights after an epoch of gradient descent, flat, and the mean loss of each batch before its step."""
    model = copy.deepcopy(model).train(training)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    losses = []
    for index, (x, y) in enumerate(batches, start=1):
        z = model(x)
        F.cross_entropy(z, y, reduction=reduction).backward()
        losses.append(F.cross_entropy(z, y).item())
        if index % every == 0:
            optimizer.step()
            if clear:
                optimizer.zero_grad()
    return flat(model), losses


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train_epoch(mine: Any) -> None:
    """``mine(model: nn.Module, optimizer, batches) -> float``: train on every batch once, in order.

    ``batches`` is a list of pairs (x, y), and the loss of a batch the mean cross-entropy of model(x) with the
    classes y, in nats.  The model comes in evaluation mode.  Returned is the mean loss per example over the
    epoch, each measured before its batch's step.
    """
    batches = [(torch.randn(size, 4), torch.randint(3, (size,))) for size in (5, 5, 2)]
    model = Moody(4, 3).eval()
    start, (right, losses) = flat(model), epoch(model, batches)
    mistakes = {
        "nothing was trained; the order is backward, step, clear the gradients": start,
        "the gradients of earlier batches are still there: clear them after each step": epoch(
            model, batches, clear=False
        )[0],
        "the model stayed in evaluation mode": epoch(model, batches, training=False)[0],
        "only the first batch was trained on": epoch(model, batches[:1])[0],
        "the last batch is missing": epoch(model, batches[:-1])[0],
        "there is one step for all batches, not one after each": epoch(model, batches, every=3)[0],
        "each batch's loss is the sum over its examples, not their mean": epoch(
            model, batches, reduction="sum"
        )[0],
    }
    case = "after an epoch of three batches with 5, 5 and 2 examples"
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    found = call(mine, {"model": model, "optimizer": optimizer, "batches": batches}, number, case)
    compare(flat(model), right, mistakes, f"{case}, in the weights,")

    sizes = [len(y) for _, y in batches]
    total = sum(loss * size for loss, size in zip(losses, sizes, strict=True))
    mean = total / sum(sizes)
    readings = {
        "batches of other sizes count alike; weigh each batch's loss by its size": sum(losses) / len(losses),
        "this is the loss of the last batch": losses[-1],
        "this is the loss of the first batch": losses[0],
        "this is the sum over the batches": sum(losses),
        "this is the sum over the examples; divide by their number": total,
    }
    if abs(found - mean) > TOLERANCE:
        cause = next((why for why, wrong in readings.items() if abs(found - wrong) < TOLERANCE), "")
        raise Wrong(f"{case} it returns {found:.3f}, not {mean:.3f}" + (cause and f": {cause}"))
