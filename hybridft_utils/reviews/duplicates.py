"""Texts that occur twice, and texts that are nearly the same."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

#: Two texts are nearly the same if they share this part of their character 5-grams (Jaccard), …
SHARED = 0.6
#: … or if one holds this part of the other's, and the other has at least this many.
HELD, FEWEST = 0.8, 20


def letters(text: str) -> str:
    """The text without case, white space and punctuation."""
    return re.sub(r"[\W_]+", "", text.casefold())


def distinct(texts: Sequence[str], labels: Sequence[Hashable]) -> list[int]:
    """The indices of texts to keep: the first of those with the same letters, the first of near-duplicates.

    Texts with the same letters and different labels are all left out, and so are texts without letters.
    """
    first: dict[str, int] = {}
    labels_of: dict[str, set[Hashable]] = {}
    for index, (text, label) in enumerate(zip(texts, labels, strict=True)):
        key = letters(text)
        first.setdefault(key, index)
        labels_of.setdefault(key, set()).add(label)
    keys = [key for key in first if key and len(labels_of[key]) == 1]
    left_out = repeated(keys)
    return [first[key] for place, key in enumerate(keys) if place not in left_out]


def repeated(keys: Sequence[str], block: int = 500) -> set[int]:
    """The places of ``keys`` that are near-duplicates of an earlier one that is kept."""
    long = [place for place, key in enumerate(keys) if len(key) >= 5]
    if not long:
        return set()
    vectorizer = CountVectorizer(
        analyzer="char", ngram_range=(5, 5), lowercase=False, binary=True, dtype=np.int32
    )
    grams = vectorizer.fit_transform([keys[place] for place in long])
    sizes = np.asarray(grams.sum(axis=1)).ravel()
    left_out: set[int] = set()
    for start in range(0, len(long), block):
        shared = (grams[start : start + block] @ grams.T).tocoo()
        later, earlier, both = start + shared.row, shared.col, shared.data
        smaller = np.minimum(sizes[later], sizes[earlier])
        near = both >= SHARED * (sizes[later] + sizes[earlier] - both)
        near |= (both >= HELD * smaller) & (smaller >= FEWEST)
        pairs = sorted(zip(later[near & (earlier < later)], earlier[near & (earlier < later)], strict=True))
        left_out.update(int(a) for a, b in pairs if int(b) not in left_out)
    return {long[place] for place in left_out}
