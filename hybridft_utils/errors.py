"""The one exception for bad input."""


class InputError(ValueError):
    """Bad input, said in one sentence: which parameter, what was given, what is accepted."""

    def __init__(self, parameter: str, given: object, accepted: str):
        shown = repr(given)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
        super().__init__(f"{parameter}: got {shown}; accepted: {accepted}.")

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]
