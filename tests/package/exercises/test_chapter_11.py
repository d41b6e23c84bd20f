"""The grader of chapter 11 accepts right answers and tells typical wrong ones apart."""

import math
from statistics import NormalDist, pvariance, stdev, variance

import pytest

from hybridft_utils import check_mine

NAME = "11.texts_needed"


def needed(first, second, half_width, spread=pvariance, z=1.96, rounded=math.ceil, power=2):
    differences = [int(one) - int(two) for one, two in zip(first, second, strict=True)]
    return rounded(spread(differences) * (z / half_width) ** power)


def by_shares(first, second, half_width):
    pairs = list(zip(first, second, strict=True))
    b, c = (pairs.count(which) / len(pairs) for which in ((True, False), (False, True)))
    return math.ceil((b + c - (b - c) ** 2) * NormalDist().inv_cdf(0.975) ** 2 / half_width**2)


def unpaired(first, second, half_width):
    p, q = (sum(answers) / len(answers) for answers in (first, second))
    return math.ceil((p * (1 - p) + q * (1 - q)) * (1.96 / half_width) ** 2)


def without_the_square(first, second, half_width):
    share = sum(one != two for one, two in zip(first, second, strict=True)) / len(first)
    return math.ceil(share * (1.96 / half_width) ** 2)


@pytest.mark.parametrize("mine", [needed, by_shares, lambda a, b, w: needed(b, a, w)])
def test_right(mine: object) -> None:
    grade = check_mine(NAME, mine)
    assert grade, grade


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (unpaired, "use the variance of the differences"),
        (without_the_square, "the square of the mean difference is missing"),
        (lambda a, b, w: needed(a, b, w / 2), "half of the interval, not the whole"),
        (lambda a, b, w: needed(a, b, 2 * w), "already half of the interval"),
        (lambda a, b, w: needed(a, b, w, power=1), "belong squared"),
        (lambda a, b, w: needed(a, b, w, z=1.0), "z = 1.96 is missing"),
        (lambda a, b, w: needed(a, b, w, z=1.645), "z = 1.645"),
        (lambda a, b, w: needed(a, b, w, variance), "not by one less"),
        (lambda a, b, w: needed(a, b, w, rounded=math.floor), "round up"),
        (lambda a, b, w: needed(a, b, w, rounded=float), "round up"),
        (lambda a, b, w: needed(a, b, w / 100), "do not divide it by 100"),
        (lambda a, b, w: needed(a, b, w, lambda d: pvariance(d) ** 0.5), "the standard deviation"),
        (lambda a, b, w: stdev(a), "it returns 0.4"),
        (lambda a, b, w: math.inf, "it returns inf"),
        (lambda a, b, w: a.clear() or 3, "changes its input first"),
    ],
)
def test_wrong(mine: object, said: str) -> None:
    grade = check_mine(NAME, mine)
    assert not grade and said in repr(grade), grade
