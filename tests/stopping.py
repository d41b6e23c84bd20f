"""Stop a writer at a chosen step that touches the disk, by an exception or as a kill does."""

import os
from pathlib import Path

import pytest

STEPS = {(os, "fsync"), (os, "replace"), (Path, "unlink"), (Path, "write_bytes")}


class Stop(BaseException):
    """Stops a save as Ctrl-C does."""


def interrupt() -> None:
    raise Stop


def stop_at(monkeypatch, number, after, stop=interrupt):
    """``stop`` at the ``number``-th step, counted from 1, before or ``after`` it is done."""
    count = [0]

    def stopping(original):
        def step(*args, **kwargs):
            count[0] += 1
            now = count[0] == number
            if now and not after:
                stop()
            result = original(*args, **kwargs)
            if now:
                stop()
            return result

        return step

    for holder, name in STEPS:
        monkeypatch.setattr(holder, name, stopping(getattr(holder, name)))


def killed_at(number, after, action):
    """Whether a process that does ``action`` was killed at that step; False where it came to its end."""
    child = os.fork()
    if not child:
        try:
            stop_at(pytest.MonkeyPatch(), number, after, lambda: os._exit(9))
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), "the action itself failed"
    return code == 9
