"""Studies: the same training with one setting changed, several seeds each, kept as a file and plotted.

``benchmarks`` writes the files of ``benchmarks/results``; the chapters read them with :func:`load_study`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from datasets import DatasetDict

from ..classifiers.bag_of_words import tfidf_regression
from ..classifiers.classifier import Classifier
from ..errors import InputError
from ..evidence.statistics import Comparison, Estimate, calibration_error, compare_all, estimate, scores
from ..methods.parts import Method
from ..methods.registry import as_entries, from_entries
from .config import RunConfig
from .fine_tune import Tuned, fine_tune
from .results import RESULTS
from .splits import as_split, subset

#: What every study shares: 1,000 training sentences, three epochs.
SETTINGS: dict[str, Any] = {"train_size": 1000, "epochs": 3, "batch_size": 16}


@dataclass(frozen=True)
class Point:
    """One setting of a study: ``methods`` trained together (none: zero-shot) under ``settings``.

    ``settings`` are fields of :class:`RunConfig`; ``test`` is off where the study chooses something,
    since choices are made on validation.  ``probe`` measures more on the tuned model.  ``draw`` makes other
    splits of the data for a seed, and ``fit`` trains in another way than :func:`fine_tune`; their ``repr``
    says how, and is kept.
    """

    methods: tuple[Method, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    gating: str | None = None
    test: bool = True
    probe: Callable[[Tuned, DatasetDict], dict[str, Any]] | None = None
    draw: Callable[[DatasetDict, int], DatasetDict] | None = None
    fit: Callable[[RunConfig, Point, int, DatasetDict], Tuned] | None = None

    @property
    def trains(self) -> bool:
        """Whether anything depends on the seed."""
        return bool(self.methods or self.fit)

    def describe(self) -> dict[str, Any]:
        """Methods, settings, gating and the learning rates that result, as JSON can hold them."""
        settings = {**SETTINGS, **self.settings}
        rates = RunConfig(**settings).rates()
        return {
            "methods": as_entries(self.methods),
            "settings": settings,
            "gating": self.gating,
            "rates": {m.kind: rates[m.kind] for m in self.methods},
            **{name: repr(way) for name, way in (("draw", self.draw), ("fit", self.fit)) if way},
        }


def measure(point: Point, seed: int) -> dict[str, Any]:
    """Train ``point`` with ``seed``: losses in nats per text, accuracies, and which test texts were right.

    ``correct`` holds a 1 for every test text that was classified correctly, in order, as a string.
    """
    config = RunConfig(**point.describe()["settings"])
    data = config.load_data()
    if point.draw is not None:
        data = point.draw(data, seed)
    start = time.perf_counter()
    if point.fit is not None:
        tuned = point.fit(config, point, seed, data)
    else:
        tuned = fine_tune(config, point.methods, seed, data, gating=point.gating)
    row: dict[str, Any] = {"seed": seed, "seconds": round(time.perf_counter() - start, 1), "trained": 0}
    if tuned.tuning is not None:
        row["trained"] = tuned.tuning.count().trained
        row["train_loss"] = [round(e.loss, 5) for e in tuned.history]
        row["validation_loss"] = round(tuned.best.validation_loss, 5)
        row["validation_accuracy"] = round(tuned.best.validation_accuracy, 5)
    if point.test:
        row |= tested(tuned.classifier, data["test"]["text"], data["test"]["label"])
    return {**row, **(point.probe(tuned, data) if point.probe else {})}


def tested(classifier: Classifier, texts: Sequence[str], labels: Sequence[int]) -> dict[str, Any]:
    """What ``classifier`` does on ``texts``: scores, the mean loss in nats per text, and the calibration error."""
    log_p = classifier.predict_logits(texts).double().log_softmax(-1)
    predictions, target = log_p.argmax(-1).tolist(), torch.tensor(labels)
    found = scores(labels, predictions, classifier.labels)
    return {
        "test_accuracy": round(found["accuracy"], 5),
        "test_macro_f1": round(found["macro_f1"], 5),
        "test_loss": round(F.nll_loss(log_p, target).item(), 5),
        "calibration_error": round(calibration_error(log_p.exp().numpy(), labels), 5),
        "correct": "".join("1" if p == label else "0" for p, label in zip(predictions, labels, strict=True)),
    }


@dataclass
class Study:
    """What a study measured; ``points`` describe its settings, ``rows`` hold one training each."""

    name: str
    points: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    provenance: dict[str, Any]

    def of(self, label: str) -> list[dict[str, Any]]:
        """The rows of one point, a seed each."""
        if label not in self.points:
            raise InputError("label", label, f"a point of this study: {', '.join(self.points)}")
        return sorted((r for r in self.rows if r["point"] == label), key=lambda r: r["seed"])

    def values(self, label: str, column: str) -> np.ndarray:
        """One column of a point's rows, (seeds,) or (seeds, ...)."""
        return np.array([row[column] for row in self.of(label)])

    def correct(self, label: str) -> np.ndarray:
        """1 where a test text was classified correctly, (seeds, texts)."""
        return np.array([[int(c) for c in row["correct"]] for row in self.of(label)])

    def bag_of_words(self, label: str) -> np.ndarray:
        """:meth:`correct` of TF-IDF with logistic regression, on the texts that a point's seeds trained on."""
        config, right = RunConfig(**self.points[label]["settings"]), []
        data = config.load_data()
        test = as_split(data["test"])
        for row in self.of(label):
            pairs = (
                as_split(subset(data["train"], config.train_size, row["seed"])),
                as_split(subset(data["validation"], config.validation_size, row["seed"], "validation_size")),
            )
            pipeline, _ = tfidf_regression(*((split.texts, split.labels) for split in pairs))
            right.append(pipeline.predict(list(test.texts)) == np.array(test.labels))
        return np.array(right).astype(int)

    def accuracy(self, label: str) -> Estimate:
        """Test accuracy with its 95 % interval over seeds and texts."""
        return estimate(self.correct(label))

    def against(self, reference: str, labels: Sequence[str]) -> dict[str, Comparison]:
        """Test accuracies of ``labels`` less that of ``reference``, paired, corrected for how many they are."""
        other = self.correct(reference)
        return compare_all({label: (self.correct(label), other) for label in labels})

    def table(self, labels: Sequence[str] | None = None) -> pd.DataFrame:
        """A row per point: means over seeds of every single-number column."""
        kept = {}
        for label in self.points if labels is None else labels:
            rows = pd.DataFrame(self.of(label)).drop(columns=["seed", "point"])
            kept[label] = rows.select_dtypes("number").mean().to_dict() | {"seeds": len(rows)}
        return pd.DataFrame(kept).T

    def rerun(self, label: str, seed: int = 0) -> dict[str, Any]:
        """Measure one point again, here and now, at the rates of then."""
        entry = self.points[label]
        if "fit" in entry or "draw" in entry:
            raise InputError("label", label, "a point that is trained on its data as they are")
        rates = entry.get("rates")
        settings = {**entry["settings"], "learning_rate": rates} if rates else entry["settings"]
        return measure(Point(tuple(from_entries(entry["methods"])), settings, entry["gating"]), seed)

    def agrees(self, row: dict[str, Any], label: str) -> bool:
        """Whether a rerun's test accuracy falls in the range of the file's seeds, give or take one
        standard error of its test split, since another processor rounds differently.
        """
        known = self.values(label, "test_accuracy")
        p, texts = float(known.mean()), self.correct(label).shape[1]
        margin = (p * (1 - p) / texts) ** 0.5
        return bool(known.min() - margin <= row["test_accuracy"] <= known.max() + margin)


def load_study(name: str) -> Study:
    """The study kept as ``benchmarks/results/study-NAME.json``."""
    path = RESULTS / f"study-{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem.removeprefix("study-") for p in RESULTS.glob("study-*.json")))
        raise InputError("name", name, f"a study of this repository: {known}")
    return Study(**json.loads(path.read_text(encoding="utf-8")))
