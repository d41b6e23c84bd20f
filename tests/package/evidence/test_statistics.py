"""Scores, intervals and verdicts against what they mean."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from hybridft_utils import InputError
from hybridft_utils.classifiers.bag_of_words import CS, majority, tfidf_regression
from hybridft_utils.evidence.statistics import (
    Comparison,
    accuracy_interval,
    calibration_error,
    compare,
    compare_all,
    comparison_table,
    estimate,
    holm,
    mean_of,
    scores,
)
from hybridft_utils.experiments.results import MethodResult, RunResult
from hybridft_utils.experiments.studies import load_study

#: Shares of the variance of a mean that come from seeds, texts and the residual.
REGIMES = {
    "seeds": (1, 0, 0.02),
    "texts": (0, 1, 0.02),
    "residual": (0, 0, 1),
    "seeds and texts": (0.5, 0.5, 0.02),
    "all": (0.4, 0.3, 0.3),
}


def test_scores_by_hand():
    got = scores([0, 0, 0, 1], [0, 1, 0, 1], ["no", "yes"])
    assert got["accuracy"] == 0.75
    assert got["confusion_matrix"] == [[2, 1], [0, 1]]
    assert got["by_label"]["yes"] == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3})
    assert got["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert scores([0, 1], [0, 0], ["no", "yes"])["by_label"]["yes"]["precision"] == 0.0


def test_calibration_error_by_hand():
    sure = np.array([[0.2, 0.8]] * 5 + [[0.6, 0.4]] * 5)
    right_in_each = [1, 1, 1, 1, 0, 0, 0, 1, 1, 1]  # four of five said with 0.8, two of five with 0.6
    assert calibration_error(sure, right_in_each) == pytest.approx(0.5 * 0 + 0.5 * 0.2)
    assert calibration_error(np.eye(3), [0, 1, 2]) == 0 and calibration_error(np.eye(3), [1, 2, 0]) == 1
    assert calibration_error(sure, right_in_each, bins=1) == pytest.approx(0.7 - 0.6)


def test_wilson_interval():
    low, high = accuracy_interval(80, 100)
    assert (round(low, 4), round(high, 4)) == (0.7112, 0.8666)


@pytest.mark.parametrize(("seeds", "regime"), list(product((3, 5, 10), REGIMES)))
def test_intervals_cover_93_to_97_percent_whatever_varies_most(seeds, regime):
    rng, texts, repetitions = np.random.default_rng(seeds), 100, 2000
    by_seed, by_text, residual = REGIMES[regime]
    drawn = (
        (by_seed * seeds) ** 0.5 * rng.standard_normal((repetitions, seeds, 1))
        + (by_text * texts) ** 0.5 * rng.standard_normal((repetitions, 1, texts))
        + (residual * seeds * texts) ** 0.5 * rng.standard_normal((repetitions, seeds, texts))
    )
    found = [estimate(values) for values in drawn]
    assert 93 <= round(100 * np.mean([e.low <= 0 <= e.high for e in found])) <= 97


def test_two_classifiers_of_the_same_accuracy_are_told_apart_in_5_percent():
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(1000):
        easy = rng.normal(1, 1, (1, 200))
        first, second = (easy + rng.normal(0, 0.5, (5, 200)) + rng.normal(0, 0.2, (5, 1)) > 0 for _ in "ab")
        verdicts.append(compare(first, second).verdict)
    assert 0.03 < 1 - np.mean([v == "not resolved" for v in verdicts]) < 0.07


def test_variance_by_hand():
    mean = mean_of(np.array([[1, 0, 2], [3, 2, 4]]))
    assert mean.value == 2 and mean.by_seed == pytest.approx(2 / 2)  # seeds' means 1 and 3
    assert mean.by_text == pytest.approx(1 / 3)  # texts' means 2, 1, 3, and no residual
    quantile = (1 * 12.7062 + 1 / 3 * 4.3027) / (4 / 3)  # Student's with 1 and with 2 degrees of freedom
    assert estimate(np.array([[1, 0, 2], [3, 2, 4]])).high == pytest.approx(2 + quantile * (4 / 3) ** 0.5)


def test_one_seed_or_one_text_is_students_interval():
    values = np.random.default_rng(0).normal(0.3, 1, 50)
    known = ttest_1samp(values, 0).confidence_interval(0.95)
    for shaped in (values[None], values[:, None]):
        found = compare(shaped, np.zeros_like(shaped))
        assert (found.low, found.high) == pytest.approx(tuple(known))
        assert found.p == pytest.approx(ttest_1samp(values, 0).pvalue)


def test_one_number_has_no_interval_and_equal_ones_none_either():
    alone = compare(np.ones((1, 1)), np.zeros((1, 1)))
    assert (alone.low, alone.high, alone.verdict, alone.p) == (-np.inf, np.inf, "not resolved", 1.0)
    same = compare(np.ones((5, 9)), np.ones((5, 9)))
    assert (same.low, same.high, same.p, same.conclusion) == (0, 0, 1.0, "as good as, within one point")
    always = compare(np.ones((5, 9)), np.zeros((5, 9)))
    assert (always.low, always.high, always.p, always.verdict) == (1, 1, 0.0, "better")


def test_paired_comparison_sees_what_unpaired_intervals_hide():
    rng = np.random.default_rng(1)
    reference = rng.random((5, 1000)) < 0.8
    better = reference | (rng.random((5, 1000)) < 0.1)
    assert estimate(reference).high > estimate(better).low
    assert compare(better, reference).verdict == "better"
    assert compare(reference, better).verdict == "worse"
    assert compare(reference, reference).verdict == "not resolved"
    assert compare(reference, reference[:1]).mean == pytest.approx(reference.mean() - reference[:1].mean())


def test_the_p_value_is_below_a_level_where_the_interval_of_that_level_excludes_zero():
    mean = mean_of(np.random.default_rng(3).normal(0.2, 1, (5, 40)))
    for alpha in (0.5, 0.05, 0.01, 0.001):
        low, high = mean.interval(alpha)
        assert (mean.p() < alpha) == (low > 0 or high < 0)
        assert mean.p(low) == pytest.approx(alpha) == mean.p(high)


def test_holm_by_hand():
    adjusted, factors = holm([0.010, 0.030, 0.005, 0.040])
    # in order 0.005, 0.010, 0.030, 0.040: times 4, 3, 2, 1, and never smaller than the one before
    assert adjusted == pytest.approx([0.030, 0.060, 0.020, 0.060])
    assert list(factors) == [3, 2, 4, 2]
    assert holm([0.04, 0.03])[0] == pytest.approx([0.06, 0.06]) and list(holm([0.04])[1]) == [1]
    assert holm([0.6, 0.7])[0] == pytest.approx([1, 1])


def test_a_table_counts_its_pairs_and_its_intervals_agree_with_its_verdicts():
    rng = np.random.default_rng(5)
    reference = np.zeros((5, 200))
    pairs = {str(i): (rng.normal(0.05 * i, 1, (5, 200)), reference) for i in range(8)}
    found, alone = compare_all(pairs), {name: compare(*pair) for name, pair in pairs.items()}
    for name, c in found.items():
        assert c.mean == alone[name].mean and c.p >= alone[name].p and c.low <= alone[name].low
        assert (c.p < 0.05) == (c.verdict != "not resolved")
    assert {c.verdict for c in found.values()} == {"better", "not resolved"}
    changed = [n for n in pairs if found[n].verdict != alone[n].verdict]
    assert changed and all(alone[n].verdict == "better" for n in changed)
    backwards = compare_all(dict(reversed(pairs.items())))
    assert all(backwards[name] == c for name, c in found.items())


def test_a_true_table_has_a_false_verdict_in_5_percent():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        table = compare_all({str(i): (rng.normal(0, 1, (5, 50)), np.zeros((5, 50))) for i in range(10)})
        wrong += any(c.verdict != "not resolved" for c in table.values())
    assert 0.02 < wrong / 400 < 0.08


def test_as_good_as_needs_a_lower_end_above_minus_one_point():
    noise = np.random.default_rng(0).normal(0, 0.05, (5, 400))
    noise -= noise.mean()
    half = estimate(noise).high
    assert half < 0.005
    shown = {
        mean: compare(noise + mean, np.zeros_like(noise)).conclusion for mean in (0.02, 0, -0.006, -0.02)
    }
    assert shown == {
        0.02: "better",
        0: "as good as, within one point",
        -0.006: "worse, within one point",
        -0.02: "worse",
    }
    edge = half - 0.01
    assert compare(noise + edge + 1e-9, np.zeros_like(noise)).as_good
    assert not compare(noise + edge - 1e-9, np.zeros_like(noise)).as_good
    assert compare(noise - 0.02, np.zeros_like(noise), margin=0.03).conclusion == "worse, within 3 points"
    many = {str(i): (noise + edge + 1e-9, np.zeros_like(noise)) for i in range(4)}
    assert not any(c.as_good for c in compare_all(many).values()), "corrected for four pairs"


def test_missing_and_unpaired_values_are_refused():
    with pytest.raises(InputError, match="values: got 'missing or infinite ones'"):
        estimate(np.array([[1.0, np.nan]]))
    for shape in ((3,), (0, 3), (2, 0)):
        with pytest.raises(InputError, match=r"values: got .*; accepted: a row per seed"):
            estimate(np.ones(shape))
    for shape in ((3, 4), (2, 5), (2,)):
        with pytest.raises(InputError, match=r"pairs: got .*; accepted: the same seeds and texts"):
            compare(np.ones((2, 4)), np.ones(shape))


def test_a_pair_has_the_same_verdict_wherever_it_is_shown():
    """Rank 1 against full fine-tuning was "worse" in chapter 06 and "not resolved" in chapter 11."""
    study = load_study("lora")
    rank, full = study.correct("rank 1"), study.correct("full")
    shown = [
        compare(rank, full),
        estimate(rank - full),
        study.against("full", ["rank 1"])["rank 1"],
        compare(rank[::-1, ::-1], full[::-1, ::-1]),  # other orders of the seeds and texts
        result_of({"rank 1": rank, "full": full}).against("full")["rank 1"],
    ]
    for found in shown:
        assert (found.mean, found.low, found.high) == pytest.approx(
            (shown[0].mean, shown[0].low, shown[0].high)
        )
    assert {found.verdict for found in shown} == {"worse"} and shown[0].high < -0.0005


def result_of(correct):
    """A run that found these answers, where 1 is right."""
    rows = [MethodResult(m, s, {}, r.tolist()) for m, of_m in correct.items() for s, r in enumerate(of_m)]
    return RunResult({}, ["no", "yes"], [1] * len(rows[0].predictions), rows, {})


def test_the_table_of_comparisons_is_in_points():
    table = comparison_table({"a": Comparison(0.0123, 0.001, 0.0236, p=0.0004, as_good=True, margin=0.01)})
    expected = {"points": "+1.2", "interval": "+0.1 to +2.4", "p": "< 0.001", "conclusion": "better"}
    pd.testing.assert_frame_equal(table, pd.DataFrame({"a": expected}).T)


def test_bag_of_words_learns_and_chooses_c_on_validation():
    texts = [f"{w} thing number {i}" for i in range(30) for w in ("good", "bad")]
    labels = [1, 0] * 30
    pipeline, c = tfidf_regression((texts[:40], labels[:40]), (texts[40:], labels[40:]))
    assert c in CS and list(pipeline.predict(["a bad one", "a good one"])) == [0, 1]
    assert list(majority((["a", "b", "c"], [1, 1, 0])).predict(["x"])) == [1]
