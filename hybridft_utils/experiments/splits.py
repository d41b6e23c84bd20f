"""The texts that a run trains on, chooses on and tests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset
from sklearn.model_selection import train_test_split

from ..errors import InputError


@dataclass(frozen=True)
class Split:
    """Texts and their label indices."""

    texts: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.texts)


def as_split(rows: Dataset) -> Split:
    return Split(list(rows["text"]), list(rows["label"]))


def subset(rows: Dataset, size: int | None, seed: int, parameter: str = "train_size") -> Dataset:
    """``size`` rows drawn by ``seed``, with the labels in the same proportions; all rows if ``size`` is None.

    Raises :class:`InputError` about ``parameter`` for a size that leaves fewer rows than labels on either
    side.
    """
    total = len(rows)
    if size is None or size == total:
        return rows
    counts = Counter(rows["label"])
    if size > total:
        raise InputError(parameter, size, f"at most the split's {total} rows")
    if min(counts.values()) < 2:
        raise InputError(parameter, size, f"all {total} rows, since a label has a single row")
    if not len(counts) <= size <= total - len(counts):
        accepted = f"{len(counts)} to {total - len(counts)} of the split's {total} rows, or all of them"
        raise InputError(parameter, size, accepted)
    kept, _ = train_test_split(range(total), train_size=size, random_state=seed, stratify=rows["label"])
    return rows.select(sorted(kept))
