"""Exercises on what a method puts into a model: a soft prompt, a LoRA layer, an adapter."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .answers import Wrong, call, compare, kind, tensor


def soft_prompt(mine: Any) -> None:
    """``mine(P: (n, d), embedded: (batch, T, d), mask: (batch, T)) -> (embedded, mask)``.

    Puts the n vectors in front of every text: (batch, n + T, d), and a mask of (batch, n + T) that is 1 on
    them.  The mask is of integers, 1 on tokens and 0 on padding; P is trained, so its gradient must arrive.
    """
    prompt, embedded = torch.randn(3, 4), torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    inputs = {"P": prompt.requires_grad_(), "embedded": embedded, "mask": mask}
    case = "for P of shape (3, 4), embedded of shape (2, 5, 4) and mask of shape (2, 5)"

    def read(value: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(value, tuple) or len(value) != 2:
            raise Wrong(f"it returns {kind(value)}, not the pair (embedded, mask)")
        if isinstance(value[1], Tensor) and tuple(value[1].shape) == (2, 5):
            raise Wrong("the mask is not extended: it has 5 columns for 8 positions")
        return tensor((2, 8, 4))(value[0]), tensor((2, 8), torch.int64)(value[1])

    found, found_mask = call(mine, inputs, read, case)
    front = prompt.detach().expand(2, 3, 4)
    compare(
        found.detach(),
        torch.cat([front, embedded], 1),
        {"the vectors stand after the text, not in front of it": torch.cat([embedded, front], 1)},
        case,
    )
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    mistakes = {
        "the mask is 0 on the prompt, so that no token sees it": torch.cat([zeros, mask], 1),
        "the mask was extended on the right": torch.cat([mask, ones], 1),
        "the mask is 1 on padding": torch.ones(2, 8),
    }
    compare(found_mask.float(), torch.cat([ones, mask], 1), mistakes, f"{case}, in the mask")
    if not found.requires_grad:
        raise Wrong(f"{case} no gradient reaches P: keep it in the graph")


def built(mine: Any, inputs: dict[str, Any], case: str) -> nn.Module:
    """The reader's module, made from ``inputs``."""

    def read(value: Any) -> nn.Module:
        if not isinstance(value, nn.Module):
            raise Wrong(f"the result is no nn.Module, but {kind(value)}")
        return value

    return call(mine, inputs, read, case)


def parameter(module: nn.Module, name: str, shape: tuple[int, int], meaning: str) -> Tensor:
    """The trained parameter ``name`` of the reader's module."""
    value = getattr(module, name, None)
    if not isinstance(value, nn.Parameter):
        raise Wrong(f"{name} must be an nn.Parameter, not {kind(value)}, so that it is trained")
    if tuple(value.shape) != shape:
        reason = "it is transposed: " if tuple(value.shape) == shape[::-1] else ""
        raise Wrong(f"{name} has shape {tuple(value.shape)}: {reason}it must be {meaning} = {shape}")
    if not value.requires_grad:
        raise Wrong(f"{name} is frozen, but it is what is trained")
    return value


def lora_layer(mine: Any) -> None:
    """``mine(base: nn.Linear, rank: int, alpha: float) -> nn.Module``, usually a class.

    Its parameters ``A`` (rank, in_features) and ``B`` (out_features, rank) are trained, the base is not.  It
    maps x of shape (..., in_features) to base(x) + alpha / rank * x A^T B^T, and starts as the base, with A
    not zero.
    """
    base, rank, alpha = nn.Linear(8, 6), 2, 5.0
    before = copy.deepcopy(base)
    case = "for base of 8 to 6 features, rank 2 and alpha 5"
    layer = built(mine, {"base": base, "rank": rank, "alpha": alpha}, case)
    a = parameter(layer, "A", (2, 8), "(rank, in_features)")
    b = parameter(layer, "B", (6, 2), "(out_features, rank)")
    x = torch.randn(2, 3, 8)
    plain = before(x).detach()
    case = "with B = 0 the layer must equal the base, but for x of shape (2, 3, 8)"
    start = call(layer, {"x": x}, tensor((2, 3, 6)), case)
    without_bias, zero_b = F.linear(x, before.weight).detach(), not b.any().item()
    mistakes = {
        "the base's output is missing": torch.zeros_like(plain),
        "the base's bias is missing": without_bias,
    }
    if not zero_b:
        mistakes = {"B does not start at zero": start.detach()}
    compare(start.detach(), plain, mistakes, case)
    if not a.any().item():
        raise Wrong(
            "A and B both start at zero, and so neither of them ever gets a gradient: draw A at random"
        )
    if not zero_b:
        raise Wrong("B does not start at zero")

    with torch.no_grad():
        a.copy_(torch.randn(2, 8))
        b.copy_(torch.randn(6, 2))
    update = (x @ a.T @ b.T).detach()
    case = "with A and B drawn at random, for x of shape (2, 3, 8), rank 2 and alpha 5"
    found = call(layer, {"x": x}, tensor((2, 3, 6)), case)
    mistakes = {
        "the scale alpha / rank is missing": plain + update,
        "the update is scaled by alpha, not by alpha / rank": plain + alpha * update,
        "the update is scaled by 1 / rank: alpha is missing": plain + update / rank,
        "the update is scaled by alpha / sqrt(rank), not by alpha / rank": plain + alpha / rank**0.5 * update,
        "the update is scaled by rank / alpha, turned round": plain + rank / alpha * update,
        "the update is missing": plain,
        "the base's output is missing": alpha / rank * update,
        "the base's bias is missing": without_bias + alpha / rank * update,
        "the update is subtracted": plain - alpha / rank * update,
    }
    compare(found.detach(), plain + alpha / rank * update, mistakes, case)
    if not (torch.equal(base.weight, before.weight) and torch.equal(base.bias, before.bias)):
        raise Wrong("it changes the base's weights; it must only read them")
    found.sum().backward()
    if a.grad is None or b.grad is None:
        raise Wrong("no gradient reaches " + ("A" if a.grad is None else "B"))
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    if trained != {"A", "B"} or base.weight.requires_grad or base.bias.requires_grad:
        extra = ", ".join(sorted(trained - {"A", "B"})) or "the base"
        raise Wrong(f"more than A and B is trained: freeze {extra}")


def adapter(mine: Any) -> None:
    """``mine(width: int, bottleneck: int) -> nn.Module``, usually a class.

    Its linear layers ``down`` (width to bottleneck) and ``up`` (bottleneck to width) have biases, and up
    starts at zero.  It maps y of shape (..., width) to y + up(relu(down(y))).
    """
    case = "for width 8 and bottleneck 3"
    layer = built(mine, {"width": 8, "bottleneck": 3}, case)
    sizes = {"down": (8, 3), "up": (3, 8)}
    parts: list[nn.Linear] = []
    for name, (entry, end) in sizes.items():
        part = getattr(layer, name, None)
        if not isinstance(part, nn.Linear):
            raise Wrong(f"{case} {name} must be an nn.Linear, not {kind(part)}")
        if (part.in_features, part.out_features) != (entry, end):
            given = f"{part.in_features} to {part.out_features}"
            raise Wrong(f"{case} {name} goes from {given} features; it must go from {entry} to {end}")
        if part.bias is None:
            raise Wrong(f"{case} {name} has no bias")
        parts.append(part)
    down, up = parts
    y = torch.randn(2, 3, 8)
    case = "at the start the adapter must return its input, but for y of shape (2, 3, 8)"
    start = call(layer, {"y": y}, tensor((2, 3, 8)), case)
    up_zero = not (up.weight.any() or up.bias.any()).item()
    mistakes = {"the residual path is missing": torch.zeros_like(y)}
    if not up_zero:
        mistakes = {"up does not start at zero, in its weight and its bias": start.detach()}
    compare(start.detach(), y, mistakes, case)
    if not down.weight.any().item():
        raise Wrong(
            "down and up both start at zero, and so neither weight ever gets a gradient: draw down at random"
        )

    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape))
    (w, b), (v, c) = ((part.weight.detach(), part.bias.detach()) for part in parts)
    inner = F.linear(y, w, b)
    network = F.linear(inner.relu(), v, c)
    case = "with weights drawn at random, for y of shape (2, 3, 8)"
    found = call(layer, {"y": y}, tensor((2, 3, 8)), case)
    mistakes = {
        "the residual path is missing": network,
        "the non-linear function is missing: two linear layers in a row are one": y + F.linear(inner, v, c),
        "the non-linear function is not the ReLU but the GELU": y + F.linear(F.gelu(inner), v, c),
        "the ReLU stands after up, where it cuts what is added": y + F.linear(inner, v, c).relu(),
        "a second ReLU cuts what is added": y + network.relu(),
        "the ReLU stands in front of down": y + F.linear(F.linear(y.relu(), w, b), v, c),
        "the ReLU cuts the sum": (y + network).relu(),
        "only the input comes out": y,
    }
    compare(found.detach(), y + network, mistakes, case)
    if not found.requires_grad or not all(p.requires_grad for p in layer.parameters()):
        raise Wrong("a part of the adapter is frozen; all of it is trained")
