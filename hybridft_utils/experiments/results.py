"""What a sentiment run found, and the runs whose results the book shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from ..errors import InputError
from ..evidence.statistics import Comparison, compare_all
from ..files import read_text, write_json

#: The measured results of this repository, written by the commands in ``benchmarks``.
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@dataclass
class MethodResult:
    """One method with one seed; ``predictions`` are label indices of the test texts in order.

    ``validation_accuracy`` is that of the parameters (the epoch, the C) that were kept; ``tuning`` is the
    folder of the trained parameters within ``output_dir``; ``seconds`` is the time that
    building, training and saving took.
    """

    method: str
    seed: int
    test: dict[str, Any]
    predictions: list[int]
    trained: int = 0
    total: int = 0
    history: list[dict[str, int | float]] = field(default_factory=list)
    best_epoch: int | None = None
    validation_accuracy: float | None = None
    seconds: float = 0.0
    tuning: str | None = None
    note: str = ""


@dataclass
class RunResult:
    """All results of a run, with what is needed to repeat it."""

    config: dict[str, Any]
    labels: list[str]
    test_labels: list[int]
    results: list[MethodResult]
    provenance: dict[str, Any]

    def correct(self, method: str) -> np.ndarray:
        """1 where a test text was classified correctly, (seeds, texts)."""
        rows = [r.predictions for r in sorted(self.results, key=lambda r: r.seed) if r.method == method]
        if not rows:
            known = ", ".join(dict.fromkeys(r.method for r in self.results))
            raise InputError("method", method, f"a method of this run: {known}")
        return (np.array(rows) == np.array(self.test_labels)).astype(int)

    def against(self, reference: str, methods: Sequence[str] | None = None) -> dict[str, Comparison]:
        """Test accuracies of ``methods``, or of all others, less that of ``reference``, paired, and corrected
        for how many they are.
        """
        named = dict.fromkeys(r.method for r in self.results) if methods is None else methods
        other = self.correct(reference)
        return compare_all({method: (self.correct(method), other) for method in named if method != reference})

    def table(self) -> pd.DataFrame:
        """A row per method: means over seeds of validation and test accuracy, the standard deviation of test
        accuracy, and macro F1, all in percent; trained parameters and their share; mean seconds per seed.
        """
        rows = []
        for method in dict.fromkeys(r.method for r in self.results):
            own = [r for r in self.results if r.method == method]
            accuracy = [100 * r.test["accuracy"] for r in own]
            validation = [
                np.nan if r.validation_accuracy is None else 100 * r.validation_accuracy for r in own
            ]
            rows.append(
                {
                    "method": method,
                    "validation": np.mean(validation),
                    "accuracy": np.mean(accuracy),
                    "std": np.std(accuracy, ddof=1) if len(own) > 1 else float("nan"),
                    "macro F1": np.mean([100 * r.test["macro_f1"] for r in own]),
                    "trained": own[0].trained,
                    "trained %": 100 * own[0].trained / own[0].total if own[0].total else 0.0,
                    "seconds": np.mean([r.seconds for r in own]),
                    "seeds": len(own),
                }
            )
        return pd.DataFrame(rows).set_index("method")

    def save(self, path: str | Path) -> None:
        """Write everything as JSON in one step."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> RunResult:
        """Read what :meth:`save` wrote; :class:`InputError` for a file that is missing or damaged."""
        try:
            return TypeAdapter(cls).validate_json(read_text(path, "path"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            problem = f"{place}: {first['msg']}" if place else first["msg"]
            raise InputError("path", str(path), f"undamaged results of a run ({problem})") from error


def load_result(name: str) -> RunResult:
    """The sentiment run kept as ``benchmarks/results/NAME.json``."""
    names = sorted(p.stem for p in RESULTS.glob("*.json"))
    if name not in names:
        raise InputError("name", name, f"a result of this repository: {', '.join(names)}")
    return RunResult.load(RESULTS / f"{name}.json")
