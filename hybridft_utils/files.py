"""Write files and folders so that a reader never sees them half-written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: The folders that ship with the package: models and the book's own reviews.
ASSETS = Path(__file__).parent / "assets"


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill; it takes the place of ``folder`` only once it is complete."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    old = fresh.with_name(f"{fresh.name}-old")
    try:
        yield fresh
        fresh.chmod(0o755)
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | Path, content: str) -> None:
    """Write ``content`` in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as JSON in one step."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
