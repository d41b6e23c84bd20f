"""Read and write files whole: what the package itself writes goes through :func:`replacing`.

A reader finds what a file held before or what it holds now, never a part, whatever stops the writer.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from safetensors.torch import save
from torch import Tensor

from .errors import InputError

#: The folders that ship with the package: models and the book's own reviews.
ASSETS = Path(__file__).parent / "assets"

LOCK = ".hybridft.lock"
#: What some readers take for the end of a line, and halves of characters, which UTF-8 cannot hold.
UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.partial")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """The path of a new file to write; the file takes the place of ``path`` once the block is complete.

    Folders on the way are created.  A symbolic link at ``path`` stays, and the file that it names is
    replaced.  If the block fails, ``path`` is as it was and the new file is removed.  Raises
    :class:`InputError` where the file cannot be written: a full disk, a read-only place, a folder at
    ``path``.
    """
    with writable("file", path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise InputError("file", str(path), "a regular file, or a name that is not taken")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{uuid4().hex}.partial")
        try:
            yield fresh
            with fresh.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(fresh, target)
        finally:
            fresh.unlink(missing_ok=True)


@contextmanager
def writable(parameter: str, path: str | Path) -> Iterator[None]:
    """Turn what the operating system refuses about ``path`` into an :class:`InputError`."""
    try:
        if not isinstance(path, str | os.PathLike) or "\0" in str(path):
            raise InputError(parameter, path, "a path without NUL characters")
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(parameter, str(path), f"a place that can be written to ({reason})") from error


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace the content of ``path`` in one step, as :func:`replacing` does."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Replace the content of ``path`` in one step; UTF-8, line breaks as given."""
    try:
        write_bytes(path, content.encode())
    except UnicodeEncodeError as error:
        given = content[error.start : error.end]
        raise InputError("file", given, f"text that UTF-8 can hold, for {path}") from error


def write_json(path: str | Path, content: Any) -> None:
    """Replace the content of ``path`` by ``content`` as JSON, in one step."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def json_line(content: Any) -> str:
    """``content`` as one line of JSON that no reader breaks in two and that UTF-8 can hold."""
    line = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def write_tensors(
    path: str | Path, state: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Replace the content of ``path`` by ``state`` as safetensors with ``notes`` in its header, in one step."""
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    # Not save_file, which makes a temporary file of its own that only its owner may read.
    write_bytes(path, save(state, {"format": "pt", **(notes or {})}))


def check_writable(folder: str | Path, parameter: str) -> None:
    """Try to write into ``folder``, which is created, before any long work; no file remains.

    Raises :class:`InputError` about ``parameter`` if it fails.
    """
    with writable(parameter, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(2**16))
            probe.flush()
            os.fsync(probe.fileno())


@contextmanager
def exclusive(folder: str | Path, parameter: str, wait: float = 0.0) -> Iterator[None]:
    """Hold ``folder``, which is created, alone among all processes that ask for it.

    The operating system drops the lock of a process that dies.  What killed writers left half-written in
    ``folder`` is removed.  Raises :class:`InputError` about ``parameter`` if another one holds the folder
    for more than ``wait`` seconds.
    """
    with writable(parameter, folder):
        place = Path(os.path.realpath(folder)) / LOCK
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=wait)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(parameter, str(folder), "a folder that no other run is writing to") from error
    try:
        with writable(parameter, folder):
            for left in place.parent.iterdir():
                if TEMPORARY.fullmatch(left.name):
                    left.unlink(missing_ok=True)
        yield
    finally:
        # Before the release: a process that waits for this file sees that it is gone, and makes a new one.
        with suppress(OSError):
            place.unlink(missing_ok=True)
        lock.release()


def read_json(path: str | Path, parameter: str) -> Any:
    """What the JSON file ``path`` holds; :class:`InputError` about ``parameter`` if it cannot be read."""
    return parse(read_text(path, parameter), path, parameter)


def read_text(path: str | Path, parameter: str) -> str:
    """The UTF-8 text of ``path``; :class:`InputError` about ``parameter`` if it cannot be read."""
    try:
        return Path(path).read_bytes().decode()
    except OSError as error:
        raise InputError(parameter, str(path), f"a file that can be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(parameter, str(path), f"a UTF-8 file ({error})") from error


def parse(text: str, place: str | Path, parameter: str) -> Any:
    """``text`` as JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(parameter, str(place), f"undamaged JSON ({error})") from error
