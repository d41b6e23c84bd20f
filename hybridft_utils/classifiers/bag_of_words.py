"""The floor under every comparison: the majority class, and a linear model on word counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

CS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

Labelled = tuple[Sequence[str], Sequence[int]]


def majority(train: Labelled) -> Pipeline:
    """Always the most frequent label of the training split."""
    return make_pipeline(DummyClassifier(strategy="most_frequent")).fit(*map(list, train))


def tfidf_regression(train: Labelled, validation: Labelled) -> tuple[Pipeline, float]:
    """TF-IDF of words and word pairs with logistic regression; C is chosen on validation.

    Returns the pipeline trained with the best C of :data:`CS` (the smallest among equals), and C.
    """
    best: tuple[float, Pipeline, float] | None = None
    for c in CS:
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", sublinear_tf=True)
        pipeline = make_pipeline(words, LogisticRegression(C=c, max_iter=2000)).fit(*map(list, train))
        accuracy = float(np.mean(pipeline.predict(list(validation[0])) == np.asarray(validation[1])))
        if best is None or accuracy > best[0]:
            best = accuracy, pipeline, c
    assert best is not None
    return best[1], best[2]
