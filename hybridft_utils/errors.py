"""The one exception for bad input."""

from __future__ import annotations

import copyreg

from pydantic import ValidationError


class InputError(ValueError):
    """Bad input, said in one sentence: which parameter, what was given, what is accepted."""

    def __init__(self, parameter: str, given: object, accepted: str):
        shown = repr(given)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
        super().__init__(f"{parameter}: got {shown}; accepted: {accepted}.")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled as its sentence, so that a worker process can hand it back."""
        return copyreg.__newobj__, (type(self), *self.args)  # type: ignore[attr-defined]

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def describe(error: ValidationError, accepted_names: list[str]) -> InputError:
    """The first problem of a pydantic error as one sentence."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "parameters"
    if first["type"] == "extra_forbidden":
        return InputError(name, first["input"], f"no such parameter; known are {', '.join(accepted_names)}")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    return InputError(name, first["input"], first["msg"].removeprefix("Input should be "))
