"""Candidates that take turns, and ratios of their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from tqdm import tqdm

Seconds = dict[str, list[float]]


def take_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1, title: str = ""
) -> Seconds:
    """Processor seconds of each candidate, a number per round; every round runs all of them once."""
    seconds: Seconds = {name: [] for name in candidates}
    for number in tqdm(range(warm_up + rounds), title, leave=False):
        for name, candidate in candidates.items():
            start = time.process_time()
            candidate()
            if number >= warm_up:
                seconds[name].append(time.process_time() - start)
    return seconds


def ratios(seconds: Seconds, reference: str) -> dict[str, dict[str, float]]:
    """Each candidate's time over the reference's of the same round: median, and the middle half of the rounds."""
    below = np.array(seconds[reference])
    found = {}
    for name, values in seconds.items():
        low, median, high = np.percentile(np.array(values) / below, [25, 50, 75]).tolist()
        found[name] = {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)}
    return found
