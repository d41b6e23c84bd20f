"""The exercise on planning: how many texts a comparison needs."""

from __future__ import annotations

import math
from typing import Any

from .answers import Wrong, call
from .counting import number

#: The normal quantile of a two-sided 95 % interval.
Z = 1.96


def texts_needed(mine: Any) -> None:
    """``mine(first: list[bool], second: list[bool], half_width: float) -> int``: the texts that a study needs.

    The lists say which texts of a pilot two models classified correctly, the same texts in the same order.
    The variance of a difference is the share of texts that exactly one has right, less the square of the
    difference in accuracy.  The answer is the smallest number of texts at which 1.96 standard errors of the
    mean difference are at most ``half_width``, a share (0.01 is one point).
    """
    both, neither = [(True, True)], [(False, False)]
    only_first, only_second = [(True, False)], [(False, True)]
    cases = [
        (both * 60 + only_first * 12 + only_second * 5 + neither * 23, 0.01),
        (both * 130 + only_first * 8 + only_second * 31 + neither * 31, 0.025),
        (both * 40 + only_first * 3 + neither * 7, 0.05),
    ]
    for pilot, half_width in cases:
        first, second = [list(answers) for answers in zip(*pilot, strict=True)]
        n, b, c = len(pilot), first.count(True), second.count(True)
        p, q, gap = b / n, c / n, (b - c) / n
        discordant = sum(one != two for one, two in pilot) / n
        variance = discordant - gap**2
        exact = variance * (Z / half_width) ** 2
        right = math.ceil(exact)
        mistakes = {
            "the same texts are answered twice: use the variance of the differences, not the sum of the two "
            "models' own variances": (p * (1 - p) + q * (1 - q)) * (Z / half_width) ** 2,
            "the square of the mean difference is missing in the variance": discordant
            * (Z / half_width) ** 2,
            "half_width is half of the interval, not the whole": 4 * exact,
            "half_width is already half of the interval": exact / 4,
            "z and half_width belong squared": variance * Z / half_width,
            "this takes the standard deviation where the variance belongs": variance**0.5
            * (Z / half_width) ** 2,
            "the quantile z = 1.96 is missing": variance / half_width**2,
            "z = 1.645 leaves 5 % on one side; a two-sided interval has 1.96": variance
            * (1.645 / half_width) ** 2,
            "the variance of a pilot's differences is divided by the number of texts here, not by one less": exact
            * n
            / (n - 1),
            "half_width is a share already; do not divide it by 100": exact * 100**2,
        }
        found = call(
            mine,
            {"first": first, "second": second, "half_width": half_width},
            number,
            case(pilot, half_width),
        )
        if found == right:
            continue
        causes = [cause for cause, wrong in mistakes.items() if abs(found - wrong) <= 1 + 1e-6 * wrong]
        if right - 1 <= found < right:
            causes = ["round up: fewer texts would make the interval too wide"]
        sentence = f"{case(pilot, half_width)} it returns {found:g}, not {right}"
        raise Wrong(sentence + (f": {causes[0]}" if causes else ""))


def case(pilot: list[tuple[bool, bool]], half_width: float) -> str:
    only = [sum(pair == which for pair in pilot) for which in ((True, False), (False, True))]
    counts = f"{only[0]} right for the first model alone and {only[1]} for the second alone"
    return f"for a pilot of {len(pilot)} texts, {counts}, and half_width {half_width}"
