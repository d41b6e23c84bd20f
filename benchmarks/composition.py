"""Composition across domains: LoRA from film snippets, and on top of it a part from a few product sentences.

Stated before the first run: with 16 or 64 product sentences per class,

1. is any part on top of the merged film LoRA better than the same part trained on the product sentences alone?
2. is any of them better than the film LoRA as it stands?
3. is any of them as good as training the film LoRA on, or as training anew on both (within one point)?

The film LoRA sees 512 snippets, drawn by the seed.  The product sentences to train and choose on are drawn from the
small splits, as many for each label, and the large split is tested on: few sentences are trained on, and many
decide more.  ``film_accuracy`` says what is left of the films.  A row's seconds include the film LoRA's training
where a process has not made it before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from datasets import DatasetDict, concatenate_datasets

from hybridft_utils import Adapter, LoRA, Recipe, RunConfig, SoftPrompt, attach, load_reviews
from hybridft_utils.evidence.statistics import Comparison, compare_all
from hybridft_utils.experiments.fine_tune import Tuned, build_classifier, fine_tune, label_names, put, tune
from hybridft_utils.experiments.splits import subset
from hybridft_utils.experiments.studies import Point, Study, tested

from .comparison import FEW, PREFIX
from .learning_rates import best_rates, rates_for
from .points import SHARED, run_points

QUESTIONS = (
    "Is a part on top of the merged film LoRA better than the same part trained on the product sentences alone?",
    "Is it better than the film LoRA as it stands?",
    "Is it as good as training the film LoRA on, or as training anew on both, within one point?",
)
FILMS, PRODUCTS = "package:vader-movies", "package:vader-products"
FILM_TEXTS, FILM_EPOCHS = 512, 5
PARTS = {"prefix": (PREFIX,), "prompt": (SoftPrompt(),), "lora": (LoRA(),), "adapter": (Adapter(),)}
ALONE = {**PARTS, "lora+prefix": (LoRA(), PREFIX)}


@dataclass(frozen=True)
class FewOf:
    """Splits with ``per_class`` texts of each label to train on and as many to choose on, tested on the rest."""

    per_class: int

    def __call__(self, data: DatasetDict, seed: int) -> DatasetDict:
        pool = concatenate_datasets([data["validation"], data["test"]])
        labels, order = np.array(pool["label"]), np.random.default_rng(seed).permutation(len(pool))
        own = [order[labels[order] == label] for label in np.unique(labels)]
        size = self.per_class
        return DatasetDict(
            train=pool.select(np.concatenate([rows[:size] for rows in own])),
            validation=pool.select(np.concatenate([rows[size : 2 * size] for rows in own])),
            test=data["train"],
        )


@dataclass(frozen=True)
class OnFilms:
    """How a point uses the films: its methods on top of the merged film LoRA, the film LoRA trained on, or its
    methods trained on both kinds of text.  ``rate`` is the film LoRA's own.
    """

    how: Literal["merged", "trained on", "both"]
    rate: float

    def __call__(self, config: RunConfig, point: Point, seed: int, data: DatasetDict) -> Tuned:
        if self.how == "both":
            both = [films(seed)["train"], data["train"]]
            columns = [rows.select_columns(["text", "label"]) for rows in both]
            mixed = DatasetDict(data, train=concatenate_datasets(columns))
            return fine_tune(config, point.methods, seed, mixed, gating=point.gating)
        classifier = build_classifier(config, label_names(data))
        film_lora = attach(classifier, LoRA())
        film_lora.load_state_dict(trained_on_films(self.rate, config.model, seed))
        if self.how == "trained on":
            return tune(config, classifier, film_lora, seed, data)
        film_lora.merge()
        if not point.methods:
            return Tuned(classifier)
        return tune(config, classifier, put(classifier, point.methods, point.gating), seed, data)


def films(seed: int) -> DatasetDict:
    """The film snippets with the seed's own to train and to choose on."""
    data = load_reviews(FILMS)
    return DatasetDict(
        data,
        train=subset(data["train"], FILM_TEXTS, seed),
        validation=subset(data["validation"], FILM_TEXTS, seed, "validation_size"),
    )


@lru_cache(maxsize=2)  # a process measures one seed after the other
def trained_on_films(rate: float, model: str, seed: int) -> dict[str, Any]:
    """The tensors of LoRA trained on the seed's film snippets."""
    config = RunConfig(model=model, dataset=FILMS, epochs=FILM_EPOCHS, learning_rate={"lora": rate}, **SHARED)
    tuned = fine_tune(config, (LoRA(),), seed, films(seed))
    assert tuned.tuning is not None
    return tuned.tuning.state_dict()


def probe(tuned: Tuned, data: DatasetDict) -> dict[str, Any]:
    """``film_accuracy`` on the test snippets."""
    test = load_reviews(FILMS)["test"]
    return {"film_accuracy": tested(tuned.classifier, test["text"], test["label"])["test_accuracy"]}


def points(few: dict[str, float], many: dict[str, float]) -> dict[str, Point]:
    """Named by the part, what it stands on, and the number of product sentences; ``few`` and ``many`` are the
    rates for few texts and for many.
    """

    def point(draw: FewOf, methods: Any, how: Any = None, rates: Any = few, **settings: Any) -> Point:
        own = rates_for(Recipe(methods), rates)
        used = {"train_size": None, "validation_size": None, "learning_rate": own}  # all that is drawn
        fit = None if how is None else OnFilms(how, many["lora"])
        return Point(methods, {**settings, **used}, probe=probe, draw=draw, fit=fit)

    made, draws = {}, {size: FewOf(settings["train_size"] // 2) for size, settings in FEW.items()}
    for size, draw in draws.items():
        epochs = FEW[size]["epochs"]
        made |= {f"{name} alone, {size}": point(draw, m, epochs=epochs) for name, m in ALONE.items()}
        made |= {
            f"{name} on films, {size}": point(draw, m, "merged", epochs=epochs) for name, m in PARTS.items()
        }
        made[f"film lora trained on, {size}"] = point(draw, PARTS["lora"], "trained on", epochs=epochs)
        made[f"lora on both, {size}"] = point(draw, PARTS["lora"], "both", many, epochs=FILM_EPOCHS)
    any_draw = next(iter(draws.values()))  # nothing is trained on it, and all have the same test split
    made["zero-shot"] = point(any_draw, ())
    made["film lora"] = point(any_draw, (), "merged")
    return made


def composition(name: str, jobs: int | str) -> None:
    run_points(name, points(best_rates(100), best_rates(1000)), PRODUCTS, jobs, range(10), QUESTIONS)


def answers(study: Study) -> dict[str, dict[str, Comparison]]:
    """The comparisons that answer each of :data:`QUESTIONS`, a family each."""

    def against(*references: str) -> dict[str, Comparison]:
        return compare_all(
            {
                f"{part} on films, {size}, against {reference.format(part=part, size=size)}": (
                    study.correct(f"{part} on films, {size}"),
                    study.correct(reference.format(part=part, size=size)),
                )
                for size in FEW
                for part in PARTS
                for reference in references
            }
        )

    return dict(
        zip(
            QUESTIONS,
            (
                against("{part} alone, {size}"),
                against("film lora"),
                against("film lora trained on, {size}", "lora on both, {size}"),
            ),
            strict=True,
        )
    )
