"""Progress bars that also behave in notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from IPython.core.getipython import get_ipython
from IPython.display import display
from tqdm import tqdm

T = TypeVar("T")


class NotebookBar:
    """A file for tqdm: shows the newest line in one output that is empty in the end.

    tqdm's own text bar writes to stderr, which a rendered book treats as a fault, and its widget
    is blank offline.
    """

    def __init__(self) -> None:
        self.handle: Any = None

    def write(self, text: str) -> None:
        line = text.strip("\r\n\x1b[A ")
        if self.handle is None and line:
            self.handle = display({"text/plain": line}, raw=True, display_id=True)
        elif self.handle is not None:
            self.handle.update({"text/plain": line}, raw=True)

    def flush(self) -> None:
        pass


def progress(
    items: Iterable[T], description: str, total: int | None = None, delay: float = 10
) -> Iterable[T]:
    """``items`` with a progress bar, which appears if they take longer than ``delay`` seconds."""
    in_notebook = getattr(get_ipython(), "kernel", None) is not None
    file = NotebookBar() if in_notebook else None
    return tqdm(items, description, total, leave=False, delay=delay, mininterval=1, file=file)
