"""The one reader of tables: csv, tsv, json, jsonl and parquet, each also with .gz, as they are written."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from ..errors import InputError
from .delimited import Rows, csv_rows, tsv_rows

ENDINGS = ("csv", "tsv", "json", "jsonl", "parquet")


def ending(file: Path) -> str:
    """The file's kind: "csv" for reviews.csv and reviews.csv.gz."""
    return file.name.lower().removesuffix(".gz").rpartition(".")[2]


def read_table(file: Path) -> pd.DataFrame:
    """The table in ``file``: every value a string as it is written, None where there is none.

    Nothing is guessed from the values: "007", "1.10", "TRUE", "NA" and the number 1e400 stay what they are.
    Empty fields of csv and tsv are empty strings; json's null, missing keys and NaN are None.  A parquet
    column with class labels (feature ``ClassLabel`` of the datasets library) holds the names, as a pandas
    categorical with the names in order; -1 is None there.  Lists and records stay lists and dictionaries.

    Raises :class:`InputError` for a file that is missing, empty, damaged or not UTF-8, for rows with more or
    fewer fields than the header, for columns of the same name, and for a tsv file whose quotes may be text
    or may quote fields (see :func:`hybridft_utils.reviews.delimited.tsv_rows`).
    """
    kind = ending(file)
    if kind not in ENDINGS:
        raise InputError("dataset", str(file), f"a file ending in {', '.join(ENDINGS)} (.gz too)")
    try:
        with gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb") as stream:
            content = stream.read()
        if kind == "parquet":
            table = read_parquet(content)
        else:
            text = content.decode("utf-8-sig")
            table = READERS[kind](text) if text.strip() else pd.DataFrame()
    except UnicodeDecodeError as error:
        raise InputError("dataset", str(file), f"a file in UTF-8 (byte {error.start} is not)") from error
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError("dataset", str(file), f"a readable {kind} file ({reason})") from error
    if table.empty:
        raise InputError("dataset", str(file), "a file that is not empty")
    return table


def from_rows(rows: Rows) -> pd.DataFrame:
    """The table whose first row names the columns."""
    if not rows:
        return pd.DataFrame()
    header = [name.strip() for name in rows[0]]
    refuse_repeated(header)
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} fields, the header {len(header)}")
    return pd.DataFrame(rows[1:], columns=header, dtype=object)


def read_json(text: str) -> pd.DataFrame:
    """A table from a list of objects, from columns as pandas writes them, or from lines of objects."""
    try:
        content = parse_json(text)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        return read_lines(text)
    if isinstance(content, dict):
        columns = content.values()
        if all(isinstance(column, dict) for column in columns):
            keys = dict.fromkeys(key for column in columns for key in column)
            content = [{name: content[name].get(key) for name in content} for key in keys]
        elif all(isinstance(column, list) for column in columns):
            content = [dict(zip(content, row, strict=True)) for row in zip(*columns, strict=True)]
        else:
            content = [content]
    return from_records(content)


def read_lines(text: str) -> pd.DataFrame:
    """A table from lines of objects; of all line ends only line feeds count."""
    return from_records([parse_json(line) for line in text.split("\n") if line.strip()])


def parse_json(text: str) -> Any:
    """JSON with numbers as they are written, and without an object that holds a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_repeated(key for key, _ in pairs)
        return dict(pairs)

    return json.loads(
        text,
        parse_int=str,
        parse_float=str,
        parse_constant=lambda name: None if name == "NaN" else name,
        object_pairs_hook=once,
    )


def from_records(records: Any) -> pd.DataFrame:
    """The table of a list of objects, whatever keys each of them has."""
    if not isinstance(records, list):
        raise ValueError("neither objects nor a list of them")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise ValueError(f"row {number} is no object")
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [cell(record.get(name)) for record in records] for name in names}
    return pd.DataFrame(columns, dtype=object)


def cell(value: Any) -> Any:
    """One value of a JSON table as written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair is no text
    return value


def read_parquet(content: bytes) -> pd.DataFrame:
    table = pq.ParquetFile(pa.BufferReader(content)).read()
    described = b"huggingface" in (table.schema.metadata or {})
    return from_arrow(table, Features.from_arrow_schema(table.schema) if described else None)


def from_arrow(table: pa.Table, features: Features | None = None) -> pd.DataFrame:
    """The table with every value as a string; ``features`` says which columns hold class labels."""
    refuse_repeated(table.column_names)
    columns = {}
    for name in table.column_names:
        feature = (features or {}).get(name)
        names = feature.names if isinstance(feature, ClassLabel) else None
        columns[name] = from_codes(table[name], names) if names else as_strings(table[name])
    return pd.DataFrame(columns)


def from_codes(column: pa.ChunkedArray, names: list[str]) -> pd.Series:
    codes = [-1 if code is None else code for code in column.to_pylist()]
    return pd.Series(pd.Categorical.from_codes(codes, categories=names))


def as_strings(column: pa.ChunkedArray) -> pd.Series:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    # Lists and records, which may stand beside texts and labels, stay what they are.
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
        column = column.cast(pa.large_string())
    return pd.Series(column.to_pylist(), dtype=object)


def shown(names: Iterable[object]) -> str:
    """Names for a sentence: ten at most, none longer than 40 characters."""
    listed = [name if len(name) <= 40 else f"{name[:40]}…" for name in map(str, names)]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")


def refuse_repeated(names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"the column {name!r} is there {count} times")


READERS: dict[str, Callable[[str], pd.DataFrame]] = {
    "csv": lambda text: from_rows(csv_rows(text)),
    "tsv": lambda text: from_rows(tsv_rows(text)),
    "json": read_json,
    "jsonl": read_lines,
}
