"""The search for learning rates: what it chooses, where it goes on, and that the package takes what it found."""

import math
from itertools import pairwise

import pytest

from benchmarks import learning_rates
from benchmarks.learning_rates import (
    CENTRES,
    JOINT,
    LADDER,
    NAME,
    POINTS,
    SIZES,
    best_rates,
    grown,
    rates_for,
    search,
)
from benchmarks.points import SEEDS as STUDY_SEEDS
from hybridft_utils import InputError, LoRA, Prefix, Recipe, unipelt
from hybridft_utils.experiments.config import LEARNING_RATES
from hybridft_utils.experiments.results import RESULTS
from hybridft_utils.experiments.studies import Study

#: Where a method of this kind is best in the studies that are made up here.
OPTIMA = {kind: LADDER[LADDER.index(centre) + 1] for kind, centre in CENTRES.items()}


def study_of(points, optima):
    """A study whose validation losses rise with the distance from each method's optimum."""
    rows = []
    for label, p in points.items():
        (rate,) = p.describe()["rates"].values()
        kind = next(name for name in CENTRES if label.startswith(f"{name} "))
        for seed, noise in enumerate((-0.1, 0.1)):
            rows.append(
                {
                    "point": label,
                    "seed": seed,
                    "validation_loss": abs(math.log(rate / optima[kind])) + noise,
                }
            )
    return Study(NAME, {label: p.describe() for label, p in points.items()}, rows, {})


def test_every_method_has_the_same_budget_and_neither_test_nor_the_studies_seeds():
    for kind in CENTRES:
        for size in SIZES:
            own = [p for label, p in POINTS.items() if label.startswith(f"{kind} ") and f" {size} " in label]
            rates = [rate for p in own for rate in p.settings["learning_rate"].values()]
            assert len(rates) == 5 and all(2 < b / a < 4 for a, b in pairwise(rates))
            assert not any(p.test for p in own) and len({len(p.methods) for p in own}) == 1
    assert not set(learning_rates.SEEDS) & set(STUDY_SEEDS)


def test_the_lowest_validation_loss_is_chosen():
    assert best_rates(1000, study_of(POINTS, OPTIMA)) == OPTIMA


def test_a_grid_whose_best_rate_is_at_its_edge_goes_on(capsys):
    assert grown(study_of(POINTS, OPTIMA)) == {}
    steps = {"lora": 5, "full": -7}
    beyond = OPTIMA | {kind: CENTRES[kind] * 3.0**step for kind, step in steps.items()}
    lora, full = LADDER.index(CENTRES["lora"]), LADDER.index(CENTRES["full"])
    assert sorted(grown(study_of(POINTS, beyond))) == sorted(
        f"{kind} {rate:g}, {size} texts"
        for kind, rate in (("lora", LADDER[lora + 3]), ("full", LADDER[full - 3]))
        for size in SIZES
    )
    assert (
        f"lora, 100 texts: 0.03, the edge of its grid: {LADDER[lora + 3]:g} comes next"
        in capsys.readouterr().out
    )


def test_the_search_ends_where_no_best_rate_is_at_an_edge(monkeypatch):
    optima, measured = OPTIMA | {"lora": 0.3}, []

    def run_points(name, points, dataset, jobs, seeds):
        measured.append(study_of(points, optima))

    monkeypatch.setattr(learning_rates, "run_points", run_points)
    monkeypatch.setattr(learning_rates, "load_study", lambda name: measured[-1])
    search(NAME, 1)
    assert [len(study.points) for study in measured] == [70, 72, 74, 76]
    assert best_rates(100, measured[-1]) == optima == best_rates(1000, measured[-1])


def test_a_search_that_is_not_there_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(learning_rates, "RESULTS", tmp_path)
    with pytest.raises(InputError, match=r"^names: got .*; accepted: learning-rates before it"):
        best_rates(100)


@pytest.mark.skipif(not (RESULTS / f"study-{NAME}.json").is_file(), reason="not measured yet")
def test_the_package_takes_the_rates_that_were_found():
    found = best_rates(1000)
    assert set(found) == set(CENTRES)
    assert {k: rate for k, rate in found.items() if k != JOINT} == {
        k: LEARNING_RATES[k] for k in found if k != JOINT
    }


def test_a_joint_prefix_takes_the_rate_that_was_searched_for_it():
    rates = {name: 0.1 * i for i, name in enumerate(CENTRES)}
    assert rates_for(unipelt(), rates)["prefix"] == rates[JOINT] != rates["prefix"]
    assert rates_for(Recipe((LoRA(), Prefix())), rates) == {"lora": rates["lora"], "prefix": rates["prefix"]}
