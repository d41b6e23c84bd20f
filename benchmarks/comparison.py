"""The comparison that settles it: every method, from 16 texts per class to all there are.

Stated before the first run:

1. Is the hybrid that trains at most 4 % of the parameters, LoRA + prefix, as good as full fine-tuning (within one
   point of accuracy) at each number of texts?
2. Does any hybrid beat the best single method, the one with the lowest validation loss?
3. Does LoRA + prefix beat LoRA with as many parameters?

Every training uses the rates that the search of ``benchmarks/learning_rates.py`` found: those at 100 texts for few
texts, and those at 1,000 for many.  Each seed draws its own texts; with few, validation has as many as training.
BitFit is missing, since ``builtin:movies``, a Llama, has no biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridft_utils import (
    Adapter,
    FullFineTuning,
    HeadOnly,
    LoRA,
    Recipe,
    RunConfig,
    SoftPrompt,
    mam,
    unipelt,
)
from hybridft_utils.evidence.statistics import Comparison, compare_all
from hybridft_utils.experiments.studies import Point, Study

from .costs import probe
from .learning_rates import best_rates, rates_for
from .points import MOVIES, run_points

QUESTIONS = (
    "Is LoRA + prefix, with at most 4 % of the parameters, as good as full fine-tuning within one point?",
    "Does any hybrid beat the best single method, chosen on validation?",
    "Does LoRA + prefix beat LoRA with as many parameters?",
)
(PREFIX,) = RunConfig().build("prefix")
FULL, HYBRID, SAME_SIZE = "full", "lora+prefix", "lora, as many parameters"
SINGLE: dict[str, Recipe] = {
    "head": Recipe((HeadOnly(),)),
    FULL: Recipe((FullFineTuning(),)),
    "prompt": Recipe((SoftPrompt(),)),
    "prefix": Recipe((PREFIX,)),
    "adapter": Recipe((Adapter(),)),
    "lora": Recipe((LoRA(),)),
    # Rank 10 trains 195,200 numbers of builtin:movies, and LoRA + prefix 188,928; rank 9 would be fewer.
    SAME_SIZE: Recipe((LoRA(rank=10),)),
}
HYBRIDS: dict[str, Recipe] = {
    HYBRID: Recipe((LoRA(), PREFIX)),
    "lora+prefix+adapter": Recipe((LoRA(), PREFIX, Adapter())),
    "lora+prefix+adapter, gated": Recipe((LoRA(), PREFIX, Adapter()), gating="unipelt"),
    "unipelt": unipelt(),
    # The bottleneck is half the model's width, as 512 is of 1,024 in the paper.
    "mam": mam(bottleneck=128),
}
RECIPES = {"zero-shot": Recipe(()), **SINGLE, **HYBRIDS}

FEW: dict[str, dict[str, Any]] = {
    "16 per class": {"train_size": 32, "validation_size": 32, "epochs": 20},
    "64 per class": {"train_size": 128, "validation_size": 128, "epochs": 10},
}
MANY: dict[str, dict[str, Any]] = {
    "512": {"train_size": 512, "validation_size": 512, "epochs": 5},
    "all": {"train_size": None, "validation_size": None, "epochs": 3},
}


def points(sizes: Mapping[str, dict[str, Any]], rates: dict[str, float]) -> dict[str, Point]:
    """Every method at every size, named "METHOD, SIZE"."""
    return {
        f"{name}, {size}": Point(
            recipe.methods,
            {**settings, "learning_rate": rates_for(recipe, rates)},
            recipe.gating,
            probe=probe,
        )
        for size, settings in sizes.items()
        for name, recipe in RECIPES.items()
    }


def few_shot(name: str, jobs: int | str) -> None:
    run_points(name, points(FEW, best_rates(100)), MOVIES, jobs, range(10), QUESTIONS)


def many_texts(name: str, jobs: int | str) -> None:
    run_points(name, points(MANY, best_rates(1000)), MOVIES, jobs, range(5), QUESTIONS)


def best_single(study: Study, size: str) -> str:
    """The single method with the lowest validation loss, a mean over seeds."""
    return min(SINGLE, key=lambda name: study.values(f"{name}, {size}", "validation_loss").mean())


def answers(study: Study) -> dict[str, dict[str, Comparison]]:
    """The comparisons that answer each of :data:`QUESTIONS` at the sizes of ``study``, a family each."""
    sizes = [size for size in (*FEW, *MANY) if f"{FULL}, {size}" in study.points]
    pairs: list[dict[str, tuple[str, str]]] = [
        {f"{HYBRID} against {FULL}, {size}": (HYBRID, FULL) for size in sizes},
        {
            f"{hybrid} against {best_single(study, size)}, {size}": (hybrid, best_single(study, size))
            for size in sizes
            for hybrid in HYBRIDS
        },
        {f"{HYBRID} against {SAME_SIZE}, {size}": (HYBRID, SAME_SIZE) for size in sizes},
    ]

    def correct(title: str, method: str) -> Any:
        return study.correct(f"{method}, {title.rsplit(', ', 1)[1]}")

    return {
        question: compare_all(
            {title: (correct(title, a), correct(title, b)) for title, (a, b) in asked.items()}
        )
        for question, asked in zip(QUESTIONS, pairs, strict=True)
    }
