"""Studies: a point measured, kept, read again and rerun."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import points as runner
from hybridft_utils import InputError, LoRA, Prefix
from hybridft_utils.experiments import studies
from hybridft_utils.experiments.studies import Point, load_study, measure

SMALL = {"train_size": 8, "validation_size": 8, "epochs": 1, "batch_size": 4}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results and kept rows in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    for module in (runner, studies):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    rows = [
        {"text": f"a {w} film, number {i}", "label": label}
        for i in range(8)
        for label, w in enumerate(("bad", "good"))
    ]
    for split in ("train", "dev", "test"):
        pd.DataFrame(rows).to_csv(tmp_path / f"{split}.csv", index=False)
    return tmp_path


def test_a_row_says_what_was_right(results):
    row = measure(Point((LoRA(rank=2),), {**SMALL, "dataset": str(results)}), seed=1)
    assert row["test_accuracy"] == pytest.approx(np.mean([int(c) for c in row["correct"]]), abs=1e-5)
    assert len(row["correct"]) == 16 and row["trained"] > 0 and len(row["train_loss"]) == 1


def test_a_choice_does_not_read_the_test_split(results):
    row = measure(Point((LoRA(rank=2),), {**SMALL, "dataset": str(results)}, test=False), seed=0)
    assert "validation_loss" in row and not {"test_accuracy", "correct"} & set(row)


def test_nothing_is_trained_without_methods(results):
    row = measure(Point((), {**SMALL, "dataset": str(results)}), seed=0)
    assert row["trained"] == 0 and "train_loss" not in row and len(row["correct"]) == 16


def test_a_study_is_kept_read_rerun_and_goes_on(results):
    grid = {f"rank {r}": Point((LoRA(rank=r),), SMALL) for r in (1, 2)}
    runner.run_points("ranks", grid, str(results), seeds=[0])
    runner.run_points("ranks", grid | {"prefix": Point((Prefix(2),), SMALL)}, str(results), seeds=[0, 1])
    lines = (results / "runs/studies/ranks.jsonl").read_text().splitlines()
    assert len(lines) == 6, "two rows of the first run were kept"

    study = load_study("ranks")
    assert list(study.points) == ["rank 1", "rank 2", "prefix"] and study.correct("prefix").shape == (2, 16)
    assert study.table().loc["rank 2", "seeds"] == 2
    described = study.points["rank 1"]["settings"]["dataset"]
    assert "/" not in described, "no folder of this machine"
    study.points["rank 1"]["settings"]["dataset"] = str(results)
    again = study.rerun("rank 1", seed=1)
    assert again["correct"] == study.of("rank 1")[1]["correct"] and study.agrees(again, "rank 1")
    assert not study.agrees({"test_accuracy": 2.0}, "rank 1")
    with pytest.raises(InputError, match=r"^label: got 'rank 9'; accepted: a point of this study: rank 1"):
        study.of("rank 9")


def test_changed_points_are_measured_again(results):
    for rank in (1, 2):
        runner.run_points("one", {"point": Point((LoRA(rank=rank),), SMALL)}, str(results), seeds=[0])
    assert load_study("one").points["point"]["methods"][0]["rank"] == 2
    kept = [json.loads(line) for line in (results / "runs/studies/one.jsonl").read_text().splitlines()]
    assert len(kept) == 2 and kept[0]["row"]["trained"] < kept[1]["row"]["trained"]
    assert load_study("one").of("point")[0]["trained"] == kept[1]["row"]["trained"]


def test_an_unknown_study_is_refused():
    with pytest.raises(InputError, match=r"^name: got 'none-such'; accepted: a study of this repository"):
        load_study("none-such")
