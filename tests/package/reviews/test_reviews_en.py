"""The built-in reviews: schema, balance, no near-duplicates, nothing of SST-2 or IMDB."""

import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from benchmarks import reviews_card
from hybridft_utils.reviews.reading import load_reviews
from hybridft_utils.reviews.splits import BUILTIN

FOLDER = BUILTIN["builtin:reviews-en"]
SPLITS = {"train": 600, "validation": 200, "test": 700}
DOMAINS = {"film", "books", "food", "hotels", "devices"}
PHENOMENA = {
    "plain",
    "negation",
    "contrast",
    "comparison",
    "intensifier",
    "hedge",
    "irony",
    "mixed aspects",
    "world knowledge",
}


@pytest.fixture(scope="module")
def rows():
    return [
        {**json.loads(line), "split": split}
        for split in SPLITS
        for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_schema(rows):
    assert Counter(r["split"] for r in rows) == SPLITS
    for row in rows:
        assert set(row) == {"text", "label", "domain", "phenomenon", "split"}
        assert row["label"] in ("negative", "positive")
        assert row["domain"] in DOMAINS and row["phenomenon"] in PHENOMENA
        assert 5 <= len(row["text"].split()) <= 40
        assert row["text"] == " ".join(row["text"].split())


def test_balanced_in_label_within_phenomenon_and_domain(rows):
    cells = Counter((r["split"], r["domain"], r["phenomenon"], r["label"]) for r in rows)
    assert len(cells) == len(SPLITS) * len(DOMAINS) * len(PHENOMENA) * 2
    for (split, domain, phenomenon, label), count in cells.items():
        other = "positive" if label == "negative" else "negative"
        assert count == cells[split, domain, phenomenon, other]


def grams(text, n=5):
    """Character n-grams of the text without case and punctuation."""
    plain = re.sub(r"[^a-z0-9 ]", "", text.lower())
    return {plain[i : i + n] for i in range(len(plain) - n + 1)}


def test_no_near_duplicates(rows):
    """No two texts, within or across splits, share 30 % of their character 5-grams (Jaccard)."""
    sets = [grams(r["text"]) for r in rows]
    postings = {}
    for index, own in enumerate(sets):
        for gram in own:
            postings.setdefault(gram, []).append(index)
    for index, own in enumerate(sets):
        shared = Counter(other for gram in own for other in postings[gram] if other > index)
        for other, count in shared.items():
            jaccard = count / (len(own) + len(sets[other]) - count)
            assert jaccard < 0.3, (rows[index]["text"], rows[other]["text"])


def test_no_template(rows):
    """No opening of three words and no run of six words is shared by more than a few reviews."""
    words = [re.sub(r"[^a-z' ]", "", r["text"].lower()).split() for r in rows]
    openings = Counter(tuple(w[:3]) for w in words)
    runs = Counter(run for w in words for run in {tuple(w[i : i + 6]) for i in range(len(w) - 5)})
    assert openings.most_common(1)[0][1] <= 6
    assert runs.most_common(1)[0][1] <= 3


def plain_words(text):
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


def runs_of_six(codes):
    """A hash of every run of six words."""
    powers = [np.uint64(pow(1_000_003, k, 2**64)) for k in range(6)]
    return sum(codes[k : len(codes) - 5 + k] * power for k, power in enumerate(powers))


@pytest.mark.needs_data
def test_no_sentence_of_public_data(rows, data):
    """No review, and no sentence of a review of at least six words, is in SST-2 or IMDB."""
    sentences = [plain_words(part) for r in rows for part in re.split(r"(?<=[.!?]) ", r["text"])]
    sentences = [words for words in sentences if len(words) >= 6]
    code = {word: index + 1 for index, word in enumerate(sorted({w for s in sentences for w in s}))}
    opening = {int(runs_of_six(np.array([code[w] for w in s[:6]], np.uint64))[0]): s for s in sentences}
    wanted = np.array(list(opening), np.uint64)
    public = [list(load_reviews(data / "sst2")[split]["text"]) for split in SPLITS]
    files = [data / "imdb" / f"{name}.parquet" for name in ("train", "test", "unsupervised")]
    found = 0
    for texts in [*public, *(pd.read_parquet(file)["text"] for file in files)]:
        words = plain_words(" ".join(texts))
        codes = np.fromiter((code.get(word, 0) for word in words), np.uint64, len(words))
        for start in np.flatnonzero(np.isin(runs_of_six(codes), wanted)):
            found += 1
            sentence = opening[int(runs_of_six(codes[start : start + 6])[0])]
            assert words[start : start + len(sentence)] != sentence, " ".join(sentence)
    assert found > 0, "some opening of six common words is bound to be found"


def test_the_card_shows_what_was_measured():
    card = reviews_card.CARD.read_text(encoding="utf-8")
    assert card == reviews_card.filled(card)
    assert card.count("| irony |") == 1
