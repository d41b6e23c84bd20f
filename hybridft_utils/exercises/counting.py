"""Exercises in plain Python: merging pairs of tokens, and a score from counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, SupportsFloat

from torch import Tensor

from .answers import TOLERANCE, Wrong, call, describe, kind

Pair = tuple[str, str]


def merged(tokens: list[str], pair: Pair) -> list[str]:
    """Every occurrence of ``pair`` from left to right as one token."""
    result: list[str] = []
    i = 0
    while i < len(tokens):
        step = 2 if tuple(tokens[i : i + 2]) == pair else 1
        result.append("".join(tokens[i : i + step]))
        i += step
    return result


def first_only(tokens: list[str], pair: Pair) -> list[str]:
    at = [i for i in range(len(tokens)) if tuple(tokens[i : i + 2]) == pair][:1]
    return [*tokens[: at[0]], "".join(pair), *tokens[at[0] + 2 :]] if at else tokens


def from_the_right(tokens: list[str], pair: Pair) -> list[str]:
    backwards = [token[::-1] for token in reversed(tokens)]
    turned = merged(backwards, (pair[1][::-1], pair[0][::-1]))
    return [token[::-1] for token in reversed(turned)]


def overlapping(tokens: list[str], pair: Pair) -> list[str]:
    starts = {i for i in range(len(tokens)) if tuple(tokens[i : i + 2]) == pair}
    kept = [i for i in range(len(tokens)) if i in starts or i - 1 not in starts]
    return ["".join(pair) if i in starts else tokens[i] for i in kept]


def kept_second(tokens: list[str], pair: Pair) -> list[str]:
    return ["".join(pair) if tuple(tokens[i : i + 2]) == pair else tokens[i] for i in range(len(tokens))]


def lost_last(tokens: list[str], pair: Pair) -> list[str]:
    return merged(tokens, pair)[:-1] if tuple(tokens[-2:]) != pair else merged(tokens, pair)


BPE_MISTAKES: dict[str, Callable[[list[str], Pair], list[str]]] = {
    "it merges the first occurrence only": first_only,
    "it goes from right to left": from_the_right,
    "merged pairs overlap; go on after both tokens": overlapping,
    "the second token of a merged pair stays": kept_second,
    "the last token is lost": lost_last,
    "it merges nothing": lambda tokens, pair: tokens,
}


def bpe_merge(mine: Any) -> None:
    """``mine(tokens: list[str], pair: tuple[str, str]) -> list[str]``: one merge of byte-pair encoding.

    Every occurrence of the pair, from left to right and without overlap, becomes one token; the input list
    stays as it is.
    """
    cases: list[tuple[list[str], Pair]] = [
        (["l", "o", "w", "e", "r"], ("l", "o")),
        (["t", "h", "e", " ", "t", "h"], ("t", "h")),
        (["a", "a", "a"], ("a", "a")),
        (["a", "b", "a"], ("b", "a")),
        (["b", "a"], ("a", "b")),
        (["a", "bc", "d"], ("b", "cd")),
        (["a"], ("a", "b")),
        ([], ("a", "b")),
    ]
    for tokens, pair in cases:
        found = call(mine, {"tokens": tokens, "pair": pair}, strings)
        right = merged(tokens, pair)
        if found != right:
            cause = next((why for why, wrong in BPE_MISTAKES.items() if found == wrong(tokens, pair)), "")
            sentence = f"for tokens {tokens!r}, pair {pair!r} it returns {found!r}, not {right!r}"
            raise Wrong(sentence + (cause and f": {cause}"))


def strings(value: Any) -> list[str]:
    """Reads a list of strings, or says what came instead."""
    if not isinstance(value, list):
        raise Wrong(f"it returns {kind(value)}, not a list of strings")
    if odd := [item for item in value if not isinstance(item, str)]:
        raise Wrong(f"it returns a list with {kind(odd[0])} in it, not a list of strings")
    return value


def macro_f1(mine: Any) -> None:
    """``mine(predicted: list[str], truth: list[str]) -> float``: the mean of the classes' F1.

    The classes are those that occur in either list.  A class that is never predicted, or never true, has an
    F1 of 0.
    """
    cases = [
        (["a", "a", "b", "b", "b", "a"], ["a", "b", "b", "b", "b", "a"]),
        (["a", "a", "b", "b", "c", "c", "c"], ["a", "b", "b", "c", "c", "c", "a"]),
        (["a", "a", "a"], ["a", "a", "b"]),
        (["a", "b", "a"], ["a", "a", "a"]),
    ]
    for predicted, truth in cases:
        inputs = {"predicted": predicted, "truth": truth}
        found = call(mine, inputs, number)
        classes = sorted({*predicted, *truth})
        pairs = list(zip(predicted, truth, strict=True))
        hits = [pairs.count((c, c)) for c in classes]
        precision = [h / max(predicted.count(c), 1) for h, c in zip(hits, classes, strict=True)]
        recall = [h / max(truth.count(c), 1) for h, c in zip(hits, classes, strict=True)]
        f1 = [2 * h / (predicted.count(c) + truth.count(c)) for h, c in zip(hits, classes, strict=True)]
        count = len(classes)
        seen = [score for score, c in zip(f1, classes, strict=True) if c in truth]
        right, p, r = sum(f1) / count, sum(precision) / count, sum(recall) / count
        mistakes = {
            "a class that is never true, but predicted, counts too, with F1 = 0": sum(seen) / len(seen),
            "this is the accuracy, which is also the F1 of all classes pooled": sum(hits) / len(pairs),
            "this is the F1 of the last class alone": f1[-1],
            "this is the F1 of the first class alone": f1[0],
            "the classes are weighted by how often they are true": sum(
                score * truth.count(c) for score, c in zip(f1, classes, strict=True)
            )
            / len(truth),
            "this is the mean precision": p,
            "this is the mean recall": r,
            "average the classes' F1; this is the F1 of the mean precision and the mean recall": 2
            * p
            * r
            / (p + r),
            "F1 is the harmonic mean of precision and recall; this is the arithmetic one": (p + r) / 2,
            "this is the sum over the classes": sum(f1),
        }
        if abs(found - right) > TOLERANCE:
            cause = next((why for why, wrong in mistakes.items() if abs(found - wrong) < TOLERANCE), "")
            sentence = f"for {describe(inputs)} it returns {found:.3f}, not {right:.3f}"
            raise Wrong(sentence + (cause and f": {cause}"))


def number(value: Any) -> float:
    """Reads a finite number, or says what came instead."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat) or isinstance(value, Tensor):
        raise Wrong(f"it returns {kind(value)}, not a number")
    if not math.isfinite(float(value)):
        raise Wrong(f"it returns {float(value)}")
    return float(value)
