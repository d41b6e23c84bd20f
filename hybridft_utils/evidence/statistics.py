"""Scores of a classifier, and comparisons that know how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support


def scores(labels: Sequence[int], predictions: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro F1, macro precision and recall, each label's own, and the confusion matrix.

    ``labels`` and ``predictions`` are indices into ``names``; rows of the matrix are true labels.
    """
    known = list(range(len(names)))
    each = precision_recall_fscore_support(labels, predictions, labels=known, zero_division=0)
    macro = precision_recall_fscore_support(
        labels, predictions, labels=known, average="macro", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "macro_f1": float(macro[2]),
        "precision": float(macro[0]),
        "recall": float(macro[1]),
        "by_label": {
            name: {"precision": float(each[0][i]), "recall": float(each[1][i]), "f1": float(each[2][i])}
            for i, name in enumerate(names)
        },
        "confusion_matrix": confusion_matrix(labels, predictions, labels=known).tolist(),
    }


def accuracy_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for an accuracy measured on ``total`` texts."""
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """How a difference is to be read: "better", "worse" or "not resolved"."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not resolved"


def estimate(correct: np.ndarray, resamples: int = 4000, seed: int = 0) -> Estimate:
    """Mean of ``correct`` (seeds, texts) with a bootstrap interval over seeds and texts.

    Both are drawn again with replacement, so the interval holds for new seeds and new texts (a
    two-level bootstrap; Davison and Hinkley 1997, section 3.8).  ``correct`` holds 0 and 1, or the
    difference of two such arrays for a paired comparison on the same seeds and texts.
    """
    values = np.asarray(correct, dtype=float)
    seeds, texts = values.shape
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        by_text = values[rng.integers(seeds, size=seeds)].mean(0)
        means[i] = by_text[rng.integers(texts, size=texts)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def compare(correct: np.ndarray, reference: np.ndarray) -> Estimate:
    """Difference in accuracy from ``reference``, paired by seed and text; see :func:`estimate`."""
    return estimate(np.asarray(correct, dtype=float) - np.asarray(reference, dtype=float))
