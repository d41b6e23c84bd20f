"""The measured results that the book shows, written by the commands in ``benchmarks``."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .run import RunResult

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def load_result(name: str) -> RunResult:
    """The sentiment run kept as ``benchmarks/results/NAME.json``."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RESULTS.glob("*.json")))
        raise InputError("name", name, f"a result of this repository: {known}")
    return RunResult.load(path)
