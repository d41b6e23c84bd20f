"""Which learning rate suits each method: one search, with the same budget for every method.

Five rates a factor of about three apart, 100 and 1,000 training texts, three seeds that no other study uses.  The
rate with the lowest validation loss, a mean over the seeds, is chosen; the test split is not read.  A best rate
at the edge of its grid is no best rate: then the grid grows on that side.

What is chosen at 1,000 texts is the default of ``RunConfig.learning_rate``; BitFit's is not searched, since
``builtin:movies`` has no biases.  Methods together take the rates of
their parts: a search over combinations would give hybrids a larger budget than anything else.
"""

from __future__ import annotations

from typing import Any

from hybridft_utils import InputError, Prefix, Recipe, RunConfig
from hybridft_utils.experiments.results import RESULTS
from hybridft_utils.experiments.studies import Point, Study, load_study

from .points import FEW, MOVIES, run_points

NAME = "learning-rates"
LADDER = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
#: The prefix of the published hybrids, which asks for a rate of its own.
JOINT = "joint prefix"
#: The middle of each method's grid.
CENTRES = {
    "head": 1e-2,
    "full": 3e-4,
    "prompt": 3e-2,
    "prefix": 3e-3,
    JOINT: 1e-2,
    "adapter": 3e-3,
    "lora": 3e-3,
}
#: Choosing a rate asks for more validation texts than choosing an epoch; all of them, ten times, would cost more
#: than the training.
SIZES: dict[int, dict[str, Any]] = {100: {**FEW, "validation_size": 512}, 1000: {"train_size": 1000}}
SEEDS = range(100, 103)


def point(name: str, rate: float, size: int) -> dict[str, Point]:
    """One rate of one method, as the package trains it by default."""
    (method,) = (Prefix(softmax="joint"),) if name == JOINT else RunConfig().build(name)
    settings = {**SIZES[size], "learning_rate": {method.kind: rate}}
    return {f"{name} {rate:g}, {size} texts": Point((method,), settings, test=False)}


def around(centre: float) -> tuple[float, ...]:
    middle = LADDER.index(centre)
    return LADDER[middle - 2 : middle + 3]


POINTS = {
    label: made
    for size in SIZES
    for name, centre in CENTRES.items()
    for rate in around(centre)
    for label, made in point(name, rate, size).items()
}


def losses(study: Study) -> dict[tuple[str, int], dict[float, float]]:
    """Mean validation loss in nats per text by rate, for each method and number of texts."""
    found: dict[tuple[str, int], dict[float, float]] = {}
    for label, described in study.points.items():
        (rate,) = described["rates"].values()
        name = label.removesuffix(f" {rate:g}, {label.split(', ')[-1]}")
        of_method = found.setdefault((name, described["settings"]["train_size"]), {})
        of_method[rate] = float(study.values(label, "validation_loss").mean())
    return {key: dict(sorted(by_rate.items())) for key, by_rate in found.items()}


def best_rates(size: int, study: Study | None = None) -> dict[str, float]:
    """The rate of each method that the search chose with ``size`` training texts, 100 or 1000."""
    if study is None and not (RESULTS / f"study-{NAME}.json").is_file():
        raise InputError("names", "a study that needs searched rates", f"{NAME} before it, which finds them")
    found = losses(study or load_study(NAME))
    return {name: min(by, key=by.__getitem__) for (name, trained), by in found.items() if trained == size}


def rates_for(recipe: Recipe, rates: dict[str, float]) -> dict[str, float]:
    """Of the rates that :func:`best_rates` gives, those of the parts of ``recipe``."""
    joint = {m.kind for m in recipe.methods if isinstance(m, Prefix) and m.softmax == "joint"}
    return {m.kind: rates[JOINT if m.kind in joint else m.kind] for m in recipe.methods}


def grown(study: Study) -> dict[str, Point]:
    """The next rate on the ladder where the best one so far is at the edge of its grid, with a printed line."""
    more = {}
    for (name, size), by_rate in losses(study).items():
        rates, best = list(by_rate), min(by_rate, key=by_rate.__getitem__)
        step = {rates[0]: -1, rates[-1]: 1}.get(best, 0)
        place = LADDER.index(best) + step
        edge = ""
        if step and 0 <= place < len(LADDER):
            more |= point(name, LADDER[place], size)
            edge = f", the edge of its grid: {LADDER[place]:g} comes next"
        print(f"{name}, {size} texts: {best:g}{edge}")
    return more


def search(name: str, jobs: int | str) -> None:
    """Measure the grids, and go on with those that end at their best rate."""
    points = dict(POINTS)
    while True:
        run_points(name, points, MOVIES, jobs, SEEDS)
        more = grown(load_study(name))
        if not more:
            break
        points |= more
