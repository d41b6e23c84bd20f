"""The floor under every comparison: the majority class, and a linear model on word counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

#: Wide enough that the best on validation lies inside: below the first nothing is learned, and towards the
#: last the training texts are known by heart.
CS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4)

Labelled = tuple[Sequence[str], Sequence[int]]


def majority(train: Labelled) -> Pipeline:
    """Always the most frequent label of the training split."""
    return make_pipeline(DummyClassifier(strategy="most_frequent")).fit(*map(list, train))


def tfidf_regression(train: Labelled, validation: Labelled) -> tuple[Pipeline, float]:
    """TF-IDF of words and word pairs with logistic regression; C is chosen on validation.

    Returns the pipeline trained with the best C of :data:`CS` (the smallest among equals), and C.
    """
    texts, labels = map(list, train)
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", sublinear_tf=True)
    counted = words.fit_transform(texts)
    held_out = words.transform(list(validation[0]))
    fits = [LogisticRegression(C=c, max_iter=2000).fit(counted, labels) for c in CS]
    best = int(np.argmax([fit.score(held_out, list(validation[1])) for fit in fits]))
    return make_pipeline(words, fits[best]), CS[best]
