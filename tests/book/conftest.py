"""The rendered book."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def site(root: Path) -> Path:
    """The folder that ``make html`` wrote."""
    folder = root / "_build" / "html"
    if not (folder / "index.html").exists():
        pytest.fail("the book is not rendered: run `make html` first")
    return folder
