"""Exercises in plain Python: merging pairs of tokens, and a score from counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .answers import Wrong, call, kind

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
