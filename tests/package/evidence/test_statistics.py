"""Scores and intervals against what they mean."""

import numpy as np
import pytest

from hybridft_utils.classifiers.bag_of_words import CS, majority, tfidf_regression
from hybridft_utils.evidence.statistics import accuracy_interval, compare, estimate, scores


def test_scores_by_hand():
    got = scores([0, 0, 0, 1], [0, 1, 0, 1], ["no", "yes"])
    assert got["accuracy"] == 0.75
    assert got["confusion_matrix"] == [[2, 1], [0, 1]]
    assert got["by_label"]["yes"] == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3})
    assert got["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert scores([0, 1], [0, 0], ["no", "yes"])["by_label"]["yes"]["precision"] == 0.0


def test_wilson_interval():
    low, high = accuracy_interval(80, 100)
    assert (round(low, 4), round(high, 4)) == (0.7112, 0.8666)


def test_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(60):
        truth = 0.7
        by_seed = truth + 0.03 * rng.standard_normal((5, 1))
        e = estimate(rng.random((5, 300)) < by_seed, resamples=400, seed=repeat)
        covered += e.low <= truth <= e.high
    assert covered >= 51


def test_paired_comparison_sees_what_unpaired_intervals_hide():
    rng = np.random.default_rng(1)
    reference = rng.random((5, 1000)) < 0.8
    better = reference | (rng.random((5, 1000)) < 0.1)
    assert estimate(reference).high > estimate(better).low
    assert compare(better, reference).verdict == "better"
    assert compare(reference, better).verdict == "worse"
    assert compare(reference, reference).verdict == "not resolved"
    assert compare(reference, reference[:1]).mean == pytest.approx(reference.mean() - reference[:1].mean())


def test_bag_of_words_learns_and_chooses_c_on_validation():
    texts = [f"{w} thing number {i}" for i in range(30) for w in ("good", "bad")]
    labels = [1, 0] * 30
    pipeline, c = tfidf_regression((texts[:40], labels[:40]), (texts[40:], labels[40:]))
    assert c in CS and list(pipeline.predict(["a bad one", "a good one"])) == [0, 1]
    assert list(majority((["a", "b", "c"], [1, 1, 0])).predict(["x"])) == [1]
