"""Batch size against method: does LoRA bear large batches worse than full fine-tuning (Schulman et al. 2025)?

Stated before the first run: at each of the batch sizes 8, 32 and 128, and with as many epochs, what does a method
lose against its own batch size of 8, and does LoRA lose more than full fine-tuning?  Larger batches make fewer steps
and ask for larger rates, so each method has three rates at each batch size, a third, one and three times the
searched one; validation chooses.
"""

from __future__ import annotations

import numpy as np

from hybridft_utils.evidence.statistics import Comparison, compare_all
from hybridft_utils.experiments.studies import Point, Study

from .comparison import FULL, HYBRID, RECIPES
from .learning_rates import best_rates, rates_for
from .points import MOVIES, run_points

QUESTIONS = (
    "What does a method lose at a batch size of 32 or 128 against its own batch size of 8, with as many epochs?",
    "Does LoRA lose more than full fine-tuning?",
)
METHODS = (FULL, "lora", "prefix", HYBRID)
SIZES, FACTORS = (8, 32, 128), (1 / 3, 1.0, 3.0)


def points(rates: dict[str, float]) -> dict[str, Point]:
    """Named "METHOD, batch SIZE, rate times FACTOR"; 1,000 texts and three epochs, as in every study."""
    return {
        f"{name}, batch {size}, rate times {factor:.2g}": Point(
            RECIPES[name].methods,
            {
                "batch_size": size,
                "learning_rate": {k: rate * factor for k, rate in rates_for(RECIPES[name], rates).items()},
            },
        )
        for name in METHODS
        for size in SIZES
        for factor in FACTORS
    }


def batch_sizes(name: str, jobs: int | str) -> None:
    run_points(name, points(best_rates(1000)), MOVIES, jobs, questions=QUESTIONS)


def chosen(study: Study, method: str, size: int) -> str:
    """The point whose rate has the lowest validation loss, a mean over seeds."""
    own = [label for label in study.points if label.startswith(f"{method}, batch {size}, ")]
    return min(own, key=lambda label: study.values(label, "validation_loss").mean())


def answers(study: Study) -> dict[str, dict[str, Comparison]]:
    """The comparisons that answer each of :data:`QUESTIONS`, a family each."""

    def gain(method: str, size: int) -> np.ndarray:
        """What the method gains over its own smallest batch, (seeds, texts)."""
        return study.correct(chosen(study, method, size)) - study.correct(chosen(study, method, SIZES[0]))

    return {
        QUESTIONS[0]: compare_all(
            {
                f"{method}, {size} against {SIZES[0]}": (gain(method, size), gain(method, SIZES[0]))
                for method in METHODS
                for size in SIZES[1:]
            }
        ),
        QUESTIONS[1]: compare_all(
            {f"lora against full, {size}": (gain("lora", size), gain(FULL, size)) for size in SIZES[1:]}
        ),
    }
