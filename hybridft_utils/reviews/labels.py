"""Labels: from what is written in a column to names and their indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..errors import InputError
from .tables import shown

#: What a program writes as text for a missing label.
MISSING = ("", "nan", "NaN", "<NA>")


def tidy(cells: Iterable[str], given: Iterable[str] | None = None) -> list[str | None]:
    """The labels, 1.0 as 1, and None where one is missing; what is among ``given`` names is left as it is."""
    known = {name: name for name in given or ()}
    return [known.get(cell) or tidied(cell) for cell in cells]


def tidied(cell: str) -> str | None:
    whole = re.fullmatch(r"([+-]?\d+)\.0+", cell)
    return whole[1] if whole else None if cell in MISSING else cell


def unlabelled(labels: Iterable[str | None], train: Iterable[str | None]) -> bool:
    """Whether a split has no labels at all, which some data sets write as -1."""
    kinds = set(labels)
    return kinds == {None} or (kinds == {"-1"} and "-1" not in train)


def index_labels(
    splits: Mapping[str, Sequence[str | None]], given: list[str] | None = None, coded: list[str] | None = None
) -> tuple[list[str], dict[str, list[int]]]:
    """Label names in the order of their indices, and every split's indices, -1 where a label is missing.

    ``given`` are names that the user chose, ``coded`` names that came with the data, both in order.  Without
    them, labels 0 and 1 are called negative and positive, and others stay what they are, sorted.  ``given``
    names may be those that are written, rename ``coded`` ones, or name labels 0, 1, … by their place.

    Raises :class:`InputError` for fewer than two labels, a label that is none of the names, and a label of
    another split that training lacks.
    """
    train = {label for label in splits["train"] if label is not None}
    if len(train) < 2:
        raise InputError(
            "label", shown(train) or "none", "at least two different labels in the training split"
        )
    names, name_of = name_labels(train, given, coded)
    for split, labels in splits.items():
        for row, label in enumerate(labels, start=1):
            known: set[str] = set(name_of) if split == "train" else train
            if label is not None and label not in known:
                names = sorted(known, key=by_number)
                raise InputError(
                    "label", f"{label} in row {row} of the {split} split", f"one of {shown(names)}"
                )
    return names, {
        split: [-1 if label is None else names.index(name_of[label]) for label in labels]
        for split, labels in splits.items()
    }


def name_labels(
    train: set[str], given: list[str] | None, coded: list[str] | None
) -> tuple[list[str], dict[str, str]]:
    """The names, and which of them each written label means."""
    if given is not None:
        if len(given) < 2 or len(set(given)) < len(given) or "" in given:
            raise InputError("label_names", given, "at least two different names")
        places = coded if coded is not None else [str(index) for index in range(len(given))]
        if not train & set(given) and train <= set(places) and len(places) == len(given):
            return given, dict(zip(places, given, strict=True))
        return given, {name: name for name in given}
    if coded is not None and set(coded) != {"0", "1"}:
        return coded, {name: name for name in coded}
    if train == {"0", "1"}:
        return ["negative", "positive"], {"0": "negative", "1": "positive"}
    names = sorted(train, key=by_number)
    return names, {name: name for name in names}


def by_number(label: str) -> tuple[float, str]:
    """A key that sorts whole numbers by size, before everything else."""
    return (float(label) if re.fullmatch(r"[+-]?\d+", label) else float("inf"), label)
