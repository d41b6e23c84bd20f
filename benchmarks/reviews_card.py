"""Put the measured accuracies by phenomenon into the data card of ``builtin:reviews-en``.

``python -m benchmarks.reviews_card`` reads the results of the studies reviews-en-movies and reviews-en-encoder.
"""

from __future__ import annotations

import numpy as np

from hybridft_utils import RunResult, load_reviews
from hybridft_utils.evidence.statistics import estimate
from hybridft_utils.experiments.results import load_result
from hybridft_utils.experiments.run import BAG_OF_WORDS, MAJORITY
from hybridft_utils.files import write_text
from hybridft_utils.reviews.splits import BUILTIN

CARD = BUILTIN["builtin:reviews-en"] / "README.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def columns() -> dict[str, tuple[RunResult, str]]:
    """What the card compares: a title, and the run and method behind it."""
    movies, encoder = load_result("reviews-en-movies"), load_result("reviews-en-encoder")
    return {
        "majority": (movies, MAJORITY),
        "bag of words": (movies, BAG_OF_WORDS),
        "movies, zero-shot": (movies, "zero-shot"),
        "movies, full": (movies, "full"),
        "MiniLM, full": (encoder, "full"),
    }


def table() -> str:
    """Accuracy in percent with its 95 % interval, a phenomenon a row, as Markdown."""
    tags = np.array(load_reviews("builtin:reviews-en")["test"]["phenomenon"])
    groups = {"all": np.ones(len(tags), dtype=bool), **{t: tags == t for t in sorted(set(tags))}}
    found = {title: run.correct(method) for title, (run, method) in columns().items()}
    lines = ["| phenomenon | reviews | " + " | ".join(found) + " |", "|---" * (len(found) + 2) + "|"]
    for tag, chosen in groups.items():
        cells = [estimate(correct[:, chosen]) for correct in found.values()]
        shown = [f"{100 * e.mean:.0f} ({100 * e.low:.0f} to {100 * e.high:.0f})" for e in cells]
        lines.append(f"| {tag} | {chosen.sum()} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def filled(card: str) -> str:
    """The card's text with the table between its two marks."""
    before, _, rest = card.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    write_text(CARD, filled(CARD.read_text(encoding="utf-8")))
