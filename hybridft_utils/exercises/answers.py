"""Running a reader's code without being stopped by it, and telling which known mistake an answer shows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

#: Answers are float32; what rounding in another order of operations may change.
TOLERANCE = 1e-4
#: Inputs that an answer may change, and gets as they are: what is trained.
SHARED = (nn.Module, torch.optim.Optimizer)


class Wrong(Exception):
    """An answer is wrong; the message is the end of the sentence that the reader sees."""


def describe(inputs: Mapping[str, Any]) -> str:
    """``x of shape (2, 3), causal True``."""
    return ", ".join(
        f"{name} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{name} {value!r}"
        for name, value in inputs.items()
        if not isinstance(value, SHARED)
    )


def same(one: Any, other: Any) -> bool:
    """Equal, tensors entry by entry."""
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def call(
    function: Callable[..., Any], inputs: Mapping[str, Any], read: Callable[[Any], T], case: str = ""
) -> T:
    """``read(function(*inputs))`` on copies of the inputs, :data:`SHARED` ones excepted.

    Whatever goes wrong becomes :class:`Wrong`.
    """
    case = case or f"for {describe(inputs)}"
    if not callable(function):
        raise Wrong(f"give the function or class itself, not {type(function).__name__}")
    given: list[Any] = [
        value if isinstance(value, SHARED) else copy.deepcopy(value) for value in inputs.values()
    ]
    try:
        result = read(function(*given))
    except Wrong as wrong:
        raise Wrong(f"{case} {wrong}") from None
    except Exception as error:  # whatever a reader's code raises is an answer to judge
        lines = str(error).splitlines() or [""]
        raise Wrong(f"{case} it raises {type(error).__name__}: {lines[0][:200]}") from None
    for (name, before), after in zip(inputs.items(), given, strict=True):
        if not same(before, after):
            raise Wrong(f"{case} it changes its input {name}: work on a copy")
    return result


def kind(value: Any) -> str:
    """What a reader's code returned, in a word."""
    return "None" if value is None else type(value).__name__


def tensor(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Callable[[Any], Tensor]:
    """Reads a tensor of ``shape`` and ``dtype`` without NaN and infinity, or says what came instead."""

    def read(value: Any) -> Tensor:
        wanted = f"a tensor of shape {shape}"
        if not isinstance(value, Tensor):
            raise Wrong(f"it returns {kind(value)}, not {wanted}")
        if tuple(value.shape) != shape:
            raise Wrong(f"it returns shape {tuple(value.shape)}, not {shape}")
        if value.dtype != dtype:
            raise Wrong(f"it returns {value.dtype}, not {dtype}")
        if not torch.isfinite(value).all().item():
            raise Wrong("it returns NaN or infinity")
        return value

    return read


def close(one: Tensor, other: Tensor) -> bool:
    """Equal up to rounding."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def compare(found: Tensor, right: Tensor, mistakes: Mapping[str, Tensor], case: str) -> None:
    """Raise :class:`Wrong` unless ``found`` is ``right``, with the known mistake or the difference."""
    if close(found, right):
        return
    difference = (found - right).abs().max().item()
    cause = next((cause for cause, wrong in mistakes.items() if close(found, wrong)), "")
    raise Wrong(f"{case} it differs by {difference:.2g} from the right answer" + (cause and f": {cause}"))


def check(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    right: Tensor,
    mistakes: Mapping[str, Tensor],
    case: str = "",
) -> None:
    """Call a function that maps ``inputs`` to one tensor, and compare what it returns."""
    case = case or f"for {describe(inputs)}"
    found = call(function, inputs, tensor(tuple(right.shape), right.dtype), case)
    compare(found.detach(), right, mistakes, case)
