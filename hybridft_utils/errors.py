"""The one exception for bad input."""

from __future__ import annotations

import copyreg
import re

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


#: What pydantic adds to a place to say which of several accepted types it means.
TYPE = re.compile(r"str|int|float|bool|[\w-]+\[.*\]|[a-z]+(-[a-z]+)+")


def describe(error: ValidationError, accepted_names: list[str]) -> InputError:
    """The first problem of a pydantic error as one sentence, as far inside the value as it is known."""
    problems = [([p for p in e["loc"] if not TYPE.fullmatch(str(p))], e) for e in error.errors()]
    same = [(place, e) for place, e in problems if place[:1] == problems[0][0][:1]]
    place, first = max(same, key=lambda problem: len(problem[0]))
    name = ".".join(map(str, place)) or "parameters"
    if first["type"] == "extra_forbidden":
        return InputError(name, first["input"], f"no such parameter; known are {', '.join(accepted_names)}")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    return InputError(name, first["input"], first["msg"].removeprefix("Input should be "))
