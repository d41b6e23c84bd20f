"""Read labelled reviews from files, a folder, the Hub or this package."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset

from ..errors import InputError
from ..files import ASSETS

BUILTIN = {"builtin:reviews-en": ASSETS / "reviews-en"}
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
}
TEXT_COLUMNS = ("text", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "sentiment")
ENDINGS = ("csv", "tsv", "jsonl", "parquet")


def load_reviews(
    source: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    label_names: list[str] | None = None,
    detokenize: bool = False,
    drop_empty: bool = False,
    seed: int = 0,
) -> DatasetDict:
    """Load reviews as splits "train", "validation" and "test" with columns ``text`` and ``label``.

    ``source`` is "builtin:reviews-en", a file or folder of csv, tsv, jsonl or parquet (csv, tsv and
    jsonl also with .gz), or a Hub id.  In a folder the file names say the split (train, validation
    or dev, test).  Missing validation or test splits are cut from the training split, 10 % each,
    balanced as the labels are, by ``seed``.  Labels 0 and 1 are called negative and positive unless
    ``label_names`` says otherwise.  ``detokenize`` undoes the spaces of tokenised text ("do n't").

    Raises :class:`InputError` naming the file, column, row or label at fault.
    """
    frames = read_frames(str(source))
    text = find_column(frames, text_column, TEXT_COLUMNS, "text_column")
    label = find_column(frames, label_column, LABEL_COLUMNS, "label_column")
    names = find_labels(frames["train"][label], label_names)
    splits = {}
    for split, frame in frames.items():
        texts = frame[text].fillna("").astype(str).str.strip()
        empty = texts.index[texts == ""]
        if len(empty) and not drop_empty:
            given = f"empty text in row {empty[0] + 1} of the {split} split ({len(empty)} in all)"
            raise InputError(text, given, "rows with text, or drop_empty=True")
        if detokenize:
            texts = texts.map(detokenized)
        indices = [label_index(value, names, row) for row, value in enumerate(frame[label])]
        cleaned = pd.DataFrame({"text": texts, "label": indices, **extra_columns(frame, text, label)})
        splits[split] = cleaned.drop(index=empty).reset_index(drop=True)
    cut_missing(splits, seed)
    return DatasetDict({s: to_dataset(splits[s], names) for s in SPLITS})


def read_frames(source: str) -> dict[str, pd.DataFrame]:
    """A table a split found in ``source``, at least "train"."""
    path = BUILTIN.get(source, Path(source))
    if source.startswith("builtin:") and source not in BUILTIN:
        raise InputError("dataset", source, f"{', '.join(BUILTIN)}, a file, a folder or a Hub id")
    if path.is_file():
        return {"train": read_file(path)}
    if path.is_dir():
        found = {}
        for split, words in SPLITS.items():
            for file in sorted(path.iterdir()):
                if file.name.split(".")[0].lower() in words and ending(file) in ENDINGS:
                    found[split] = read_file(file)
        if "train" not in found:
            accepted = f"a folder with a file train.{{{','.join(ENDINGS)}}}"
            raise InputError("dataset", str(path), accepted)
        return found
    return read_hub(source)


def read_hub(source: str) -> dict[str, pd.DataFrame]:
    """The splits of a Hub data set that the book uses."""
    accepted = "a file or folder that exists, or the id of a data set the Hub can be asked for"
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) is None:
        raise InputError("dataset", source, accepted)
    try:
        data = load_dataset(source)
    except Exception as error:
        reason = f"{source} ({type(error).__name__})"
        raise InputError("dataset", reason, accepted) from error
    frames = {s: data[w].to_pandas() for s, words in SPLITS.items() for w in words if w in data}
    if "train" not in frames:
        raise InputError(
            "dataset", f"{source} with splits {', '.join(data)}", "a data set with a train split"
        )
    return frames


def ending(file: Path) -> str:
    """The file's kind: "csv" for reviews.csv and reviews.csv.gz."""
    return file.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()


def read_file(file: Path) -> pd.DataFrame:
    """One table; values stay as they are written."""
    kind = ending(file)
    if kind not in ENDINGS:
        raise InputError("dataset", str(file), f"a file ending in {', '.join(ENDINGS)} (.gz too)")
    try:
        if kind == "parquet":
            frame = pd.read_parquet(file)
        elif kind == "jsonl":
            frame = pd.read_json(file, lines=True, encoding="utf-8", dtype=False)
        elif kind == "tsv":
            frame = pd.read_csv(file, sep="\t", quoting=3, encoding="utf-8", keep_default_na=False)
        else:
            frame = pd.read_csv(file, encoding="utf-8", keep_default_na=False)
    except UnicodeDecodeError as error:
        raise InputError("dataset", str(file), f"a file in UTF-8 (byte {error.start} is not)") from error
    except pd.errors.EmptyDataError as error:
        raise InputError("dataset", str(file), "a file that is not empty") from error
    except Exception as error:
        raise InputError("dataset", str(file), f"a readable {kind} file ({error})") from error
    if frame.empty:
        raise InputError("dataset", str(file), "a file that is not empty")
    return frame


def find_column(
    frames: dict[str, pd.DataFrame], name: str | None, usual: tuple[str, ...], parameter: str
) -> str:
    """The named column, or the first of the usual ones, present in every split."""
    for candidate in (name,) if name else usual:
        if all(candidate in frame.columns for frame in frames.values()):
            return candidate
    columns = ", ".join(str(c) for c in frames["train"].columns)
    given = name if name else f"no column named {' or '.join(usual)}"
    raise InputError(parameter, given, f"one of the columns {columns}")


def find_labels(values: pd.Series, names: list[str] | None) -> list[str]:
    """Label names in the order of their indices."""
    kinds = sorted({str(v) for v in values})
    if names is not None:
        return list(names)
    if set(kinds) <= {"0", "1"}:
        return ["negative", "positive"]
    if len(kinds) < 2:
        raise InputError("label", ", ".join(kinds), "at least two different labels in the training split")
    return kinds


def label_index(value: object, names: list[str], row: int) -> int:
    """Index of a label that is written as a name or, as 0, 1, …, as an index."""
    text = str(value)
    if text in names:
        return names.index(text)
    if re.fullmatch(r"\d+(\.0)?", text) and int(float(text)) < len(names):
        return int(float(text))
    raise InputError("label", f"{text} in row {row + 1}", f"one of {', '.join(names)}, or an index into them")


def extra_columns(frame: pd.DataFrame, text: str, label: str) -> dict[str, pd.Series]:
    """Tags of the built-in reviews that the error analysis uses."""
    return {c: frame[c] for c in ("domain", "phenomenon") if c in frame.columns and c not in (text, label)}


def cut_missing(splits: dict[str, pd.DataFrame], seed: int) -> None:
    """Cut missing splits from the training split, 10 % of it each."""
    from sklearn.model_selection import train_test_split

    size = max(1, round(0.1 * len(splits["train"])))
    for split in ("validation", "test"):
        if split not in splits:
            labels = splits["train"]["label"]
            try:
                rest, cut = train_test_split(
                    splits["train"], test_size=size, random_state=seed, stratify=labels
                )
            except ValueError as error:
                given = f"{len(labels)} rows in the training split"
                raise InputError(
                    "dataset", given, f"enough rows of each label to cut a {split} split"
                ) from error
            splits["train"], splits[split] = rest.reset_index(drop=True), cut.reset_index(drop=True)


def to_dataset(frame: pd.DataFrame, names: list[str]) -> Dataset:
    features = {"text": Value("string"), "label": ClassLabel(names=names)}
    features |= {c: Value("string") for c in frame.columns if c not in features}
    return Dataset.from_pandas(frame, features=Features(features), preserve_index=False)


def detokenized(text: str) -> str:
    """Undo the spaces that a treebank tokeniser put in: "it 's n't bad ." becomes "it's n't bad."."""
    text = re.sub(r" (n't|'\w+)\b", r"\1", text)
    text = text.replace("-lrb-", "(").replace("-rrb-", ")").replace("``", '"').replace("''", '"')
    text = re.sub(r" ([.,:;?!%)\]])", r"\1", text)
    return re.sub(r"([(\[$]) ", r"\1", text).strip()
