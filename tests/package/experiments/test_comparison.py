"""The comparison, batch sizes, composition and costs: what they compare, on a tiny model and a few texts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import batch_sizes, comparison, composition, costs
from benchmarks.comparison import FULL, HYBRID, HYBRIDS, RECIPES, SAME_SIZE, SINGLE
from benchmarks.composition import FewOf, OnFilms
from benchmarks.learning_rates import CENTRES
from hybridft_utils import FullFineTuning, LoRA, RunConfig, attach, load_base, load_reviews
from hybridft_utils.experiments.fine_tune import Tuned, build_classifier, fine_tune
from hybridft_utils.experiments.studies import Study, measure

TINY = {"epochs": 1, "batch_size": 4, "train_size": 8, "validation_size": 8}


def write_reviews(folder, kind, rows=16):
    folder.mkdir()
    for split in ("train", "dev", "test"):
        texts = [f"a {w} {kind} of {split} {i}" for i in range(rows) for w in ("bad", "good")]
        pd.DataFrame({"text": texts, "label": [0, 1] * rows}).to_csv(folder / f"{split}.csv", index=False)
    return str(folder)


@pytest.fixture
def films(tmp_path):
    return write_reviews(tmp_path / "films", "film")


@pytest.fixture
def products(tmp_path):
    return write_reviews(tmp_path / "products", "phone")


def tiny(points, model, dataset, **settings):
    """The points with little to train, on the tiny model."""
    changed = {"model": str(model), "dataset": dataset, **settings}
    return {label: replace(p, settings={**p.settings, **changed}) for label, p in points.items()}


def study_of(points, seeds=(0,)):
    rows = [{"point": label, **measure(p, seed)} for label, p in points.items() for seed in seeds]
    return Study("made", {label: p.describe() for label, p in points.items()}, rows, {})


def test_the_hybrid_trains_at_most_4_percent_and_lora_of_its_size_as_much():
    def trained(methods):
        model, _ = load_base("builtin:movies")
        return attach(model, *methods).count()

    hybrid, same = trained(HYBRIDS[HYBRID].methods), trained(SINGLE[SAME_SIZE].methods)
    (smaller,) = (replace(m, rank=m.rank - 1) for m in SINGLE[SAME_SIZE].methods)
    assert hybrid.percent <= 4
    assert trained((smaller,)).trained < hybrid.trained <= same.trained


def test_every_method_is_compared_at_every_size_and_costs_are_measured(
    monkeypatch, model_folder, films, products
):
    monkeypatch.setattr(costs, "ELSEWHERE", products)
    monkeypatch.setattr(costs, "TEXTS", 3)
    points = comparison.points({**comparison.FEW, **comparison.MANY}, dict(CENTRES))
    assert len(points) == 4 * len(RECIPES) == 4 * 13
    few = {f"{m}, 16 per class" for m in RECIPES}
    study = study_of(tiny({k: p for k, p in points.items() if k in few}, model_folder, films, **TINY))
    assert study.values("zero-shot, 16 per class", "forgetting").tolist() == [[0.0] * 3]
    for name in RECIPES:
        row = study.of(f"{name}, 16 per class")[0]
        assert {"test_macro_f1", "calibration_error", "seconds", "memory"} <= set(row) and len(
            row["forgetting"]
        ) == 3
        assert (row["file"] > 4 * row["trained"] > 0) if name != "zero-shot" else row["file"] == 0
    forgets = {
        name: any(study.of(f"{name}, 16 per class")[0]["forgetting"]) for name in (FULL, "lora", "head")
    }
    assert forgets == {FULL: True, "lora": True, "head": False}
    found = comparison.answers(study)
    assert list(found) == list(comparison.QUESTIONS) and [len(f) for f in found.values()] == [1, 5, 1]
    difference = study.correct(f"{HYBRID}, 16 per class") - study.correct(f"{FULL}, 16 per class")
    assert found[comparison.QUESTIONS[0]][f"{HYBRID} against {FULL}, 16 per class"].mean == difference.mean()


def test_training_memory_by_hand(model_folder):
    config = RunConfig(model=str(model_folder))
    texts = ["good"] * 4

    def needed(*methods):
        classifier = build_classifier(config, ["negative", "positive"])
        tuning = attach(classifier, *methods) if methods else None
        weights = sum(p.nbytes for p in set(classifier.parameters()))
        return costs.training_memory(Tuned(classifier, tuning), texts, [0, 1, 0, 1]) - weights, tuning

    lora, tuning = needed(LoRA())
    full, whole = needed(FullFineTuning())
    assert full - 12 * whole.count().trained > 0 and lora - 12 * tuning.count().trained > 0
    assert full - lora > 12 * (whole.count().trained - tuning.count().trained) * 0.9
    with torch.no_grad():
        assert needed()[0] == 0


def test_few_products_are_balanced_disjoint_and_tested_on_the_large_split(products):
    data = load_reviews(products)
    drawn, again, other = FewOf(5)(data, 1), FewOf(5)(data, 1), FewOf(5)(data, 2)
    for split in ("train", "validation"):
        assert np.bincount(drawn[split]["label"]).tolist() == [5, 5]
        assert drawn[split]["text"] == again[split]["text"] != other[split]["text"]
    assert list(drawn["test"]["text"]) == list(data["train"]["text"])
    assert len({*drawn["train"]["text"], *drawn["validation"]["text"], *drawn["test"]["text"]}) == 20 + len(
        data["train"]
    )


@pytest.fixture
def composed(monkeypatch, model_folder, films, products):
    """The composition's points on tiny data."""
    monkeypatch.setattr(composition, "FILMS", films)
    monkeypatch.setattr(composition, "FILM_TEXTS", 8)
    monkeypatch.setattr(composition, "SHARED", {"batch_size": 4})
    monkeypatch.setattr(
        composition, "FEW", {k: {**v, "train_size": 8, "epochs": 1} for k, v in composition.FEW.items()}
    )
    composition.trained_on_films.cache_clear()
    return tiny(composition.points(dict(CENTRES), dict(CENTRES)), model_folder, products, batch_size=4)


def test_the_film_lora_as_it_stands_is_what_lora_learns_from_films(composed, films, products):
    point = composed["film lora"]
    config = RunConfig(**point.describe()["settings"])
    data = point.draw(config.load_data(), 3)
    found = point.fit(config, point, 3, data).classifier.predict_logits(data["test"]["text"])
    on_films = RunConfig(
        model=config.model, dataset=films, epochs=5, batch_size=4, learning_rate={"lora": 3e-3}
    )
    expected = fine_tune(on_films, (LoRA(),), 3, composition.films(3)).classifier.predict_logits(
        data["test"]["text"]
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    untouched = build_classifier(config, ["negative", "positive"]).predict_logits(data["test"]["text"])
    assert not torch.allclose(found, untouched, atol=1e-3)


def test_training_on_starts_from_the_film_lora_and_both_sees_both(composed, monkeypatch):
    seen = {}

    def tune(config, classifier, tuning, seed, data):
        seen["start"] = tuning.state_dict()
        return Tuned(classifier)

    def fine_tune(config, methods, seed, data, gating):
        seen["texts"] = list(data["train"]["text"])
        return Tuned(None)

    point = composed["film lora trained on, 16 per class"]
    config = RunConfig(**point.describe()["settings"])
    data = point.draw(config.load_data(), 0)
    learned = composition.trained_on_films(point.fit.rate, config.model, 0)
    monkeypatch.setattr(composition, "tune", tune)
    monkeypatch.setattr(composition, "fine_tune", fine_tune)
    point.fit(config, point, 0, data)
    assert all(torch.equal(seen["start"][name], value) for name, value in learned.items())
    composed["lora on both, 16 per class"].fit(config, point, 0, data)
    assert seen["texts"] == [*composition.films(0)["train"]["text"], *data["train"]["text"]]


def test_composition_answers_its_questions(composed):
    study = study_of(composed)
    assert len(study.points) == 2 * 11 + 2 and study.values("film lora", "trained").tolist() == [0]
    assert study.points["film lora"]["fit"] == repr(OnFilms("merged", 3e-3))
    found = composition.answers(study)
    assert [len(family) for family in found.values()] == [8, 8, 16]
    assert found[composition.QUESTIONS[1]][
        "lora on films, 64 per class, against film lora"
    ].mean == pytest.approx(
        (study.correct("lora on films, 64 per class") - study.correct("film lora")).mean()
    )


def test_batch_sizes_choose_their_rate_on_validation():
    points = batch_sizes.points(dict(CENTRES))
    assert len(points) == 4 * 3 * 3
    rng, rows = np.random.default_rng(0), []
    for label in points:
        for seed in range(3):
            right = "".join(map(str, rng.integers(0, 2, 20)))
            loss = 0.1 if "times 3" in label else 0.5
            rows.append({"point": label, "seed": seed, "correct": right, "validation_loss": loss})
    study = Study("batch-sizes", {label: p.describe() for label, p in points.items()}, rows, {})
    assert batch_sizes.chosen(study, "lora", 32) == "lora, batch 32, rate times 3"
    answers = batch_sizes.answers(study)
    assert [len(family) for family in answers.values()] == [8, 2]
    right = {
        m: study.correct(f"{m}, batch 128, rate times 3") - study.correct(f"{m}, batch 8, rate times 3")
        for m in ("lora", "full")
    }
    assert answers[batch_sizes.QUESTIONS[1]]["lora against full, 128"].mean == pytest.approx(
        (right["lora"] - right["full"]).mean()
    )
