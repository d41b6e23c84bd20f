"""Parse delimited text exactly: comma-separated values, and tab-separated ones plain or quoted."""

from __future__ import annotations

import csv
import io
from itertools import chain
from typing import Literal

Rows = list[list[str]]

csv.field_size_limit(2**31 - 1)  # a review may be longer than the module's default of 131,072 characters


def parse(text: str, delimiter: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> Rows:
    """The rows; a field in quotes may hold delimiters, line breaks and doubled quotes.

    Raises ``ValueError`` for quotes that do not close, text after a closing quote, and a carriage return
    outside quotes.
    """
    lines = io.StringIO(text, newline="\n")  # a field may hold every other kind of line end
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True))
    except csv.Error as error:
        raise ValueError(str(error).partition(" - ")[0]) from error
    while rows and not rows[-1]:
        rows.pop()
    if rows and len(rows[0]) == 1:  # a blank line is an empty field here
        return [row or [""] for row in rows]
    return [row for row in rows if row]


def csv_rows(text: str) -> Rows:
    """Comma-separated values; if the header has no comma, values between semicolons or tabs."""
    header = text.partition("\n")[0]
    return parse(text, next((delimiter for delimiter in ",;\t" if delimiter in header), ","))


def tsv_rows(text: str) -> Rows:
    """Tab-separated values, whether quotes are text or quote fields as in csv.

    The two readings differ only where a field starts with a quote.  The one that gives every row as many
    fields as the header is taken.  Where both do, fields are quoted if the header is, or if each that would
    be unquoted had to be quoted, since it holds a quote itself; they are plain if none had to.

    Raises ``ValueError`` where neither decides.
    """
    try:
        plain = parse(text, "\t", csv.QUOTE_NONE)
    except ValueError:
        return parse(text, "\t")
    try:
        quoted = parse(text, "\t")
    except ValueError:
        return plain
    if quoted == plain or not even(quoted):
        return plain
    if not even(plain) or all(name.startswith('"') for name in plain[0]):
        return quoted
    pairs = zip(chain.from_iterable(plain), chain.from_iterable(quoted), strict=False)
    needed = {'"' in inner for outer, inner in pairs if outer != inner}
    if len(plain) != len(quoted) or len(needed) != 1:
        raise ValueError("quotes that may be text or may quote fields")
    return quoted if needed.pop() else plain


def even(rows: Rows) -> bool:
    """Whether every row has as many fields as the header."""
    return len({len(row) for row in rows}) == 1
