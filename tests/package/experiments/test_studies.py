"""Studies: a point measured, kept, read again and rerun."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import points as runner
from benchmarks import studies as command
from hybridft_utils import InputError, LoRA, Prefix
from hybridft_utils.experiments import studies
from hybridft_utils.experiments.config import LEARNING_RATES
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
    words = study.bag_of_words("rank 1")
    assert words.shape == (2, 16) and words.all(), "one word decides"
    with pytest.raises(InputError, match=r"^label: got 'rank 9'; accepted: a point of this study: rank 1"):
        study.of("rank 9")


def test_what_trains_nothing_is_measured_once(results):
    grid = {"zero-shot": Point((), SMALL), "rank 1": Point((LoRA(rank=1),), SMALL)}
    runner.run_points("both", grid, str(results), seeds=[3, 4])
    study = load_study("both")
    assert study.values("zero-shot", "seed").tolist() == [3] and len(study.of("rank 1")) == 2
    assert study.against("zero-shot", ["rank 1"])["rank 1"].mean == pytest.approx(
        study.correct("rank 1").mean() - study.correct("zero-shot").mean()
    )


def test_another_default_rate_is_another_point_and_a_rerun_keeps_the_old_one(results, monkeypatch):
    point = Point((LoRA(rank=2),), {**SMALL, "dataset": str(results)})
    runner.run_points("one", {"point": point}, str(results), seeds=[0])
    key, entry = runner.point_key(point), load_study("one").points["point"]
    assert entry["rates"] == {"lora": LEARNING_RATES["lora"]} and "learning_rate" not in entry["settings"]
    monkeypatch.setitem(LEARNING_RATES, "prefix", 0.5)
    assert runner.point_key(point) == key, "of a method that is not there"
    monkeypatch.setitem(LEARNING_RATES, "lora", 0.5)
    assert runner.point_key(point) != key
    study = load_study("one")
    study.points["point"]["settings"]["dataset"] = str(results)
    assert study.rerun("point")["train_loss"] == study.of("point")[0]["train_loss"]


def test_changed_points_are_measured_again(results):
    for rank in (1, 2):
        runner.run_points("one", {"point": Point((LoRA(rank=rank),), SMALL)}, str(results), seeds=[0])
    assert load_study("one").points["point"]["methods"][0]["rank"] == 2
    kept = [json.loads(line) for line in (results / "runs/studies/one.jsonl").read_text().splitlines()]
    assert len(kept) == 2 and kept[0]["row"]["trained"] < kept[1]["row"]["trained"]
    assert load_study("one").of("point")[0]["trained"] == kept[1]["row"]["trained"]


def killed(tuned, data):
    """A probe during which the system kills the process."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_bad_point_and_a_killed_one_lose_no_rows(results):
    good = Point((LoRA(rank=1),), SMALL)
    bad = {"bad": Point((LoRA(rank=1),), SMALL | {"train_size": 10**6})}
    dying = {"dying": replace(good, probe=killed)}
    with pytest.raises(InputError, match=r"^names: got '2 of 3 trainings of some failed'; accepted: .*kept"):
        runner.run_points("some", bad | dying | {"good": good}, str(results), seeds=[0])
    assert not (results / "study-some.json").exists()
    lines = (results / "runs/studies/some.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"]["point"] for line in lines] == ["good"]


def test_rows_of_changed_data_do_not_count(results):
    point = Point((LoRA(rank=2),), {**SMALL, "dataset": str(results)})
    before = runner.point_key(point)
    assert runner.point_key(point) == before
    test = results / "test.csv"
    test.write_text(test.read_text().replace("number 0", "number zero"))
    assert runner.point_key(point) != before


@given(cut=st.integers(0, 300), noise=st.binary(max_size=9))
@settings(deadline=None)
def test_a_line_that_was_cut_is_measured_again(cut, noise):
    entries = [{"key": "k", "row": {"point": "p", "seed": seed, "loss": [0.5]}} for seed in range(3)]
    whole = "".join(json.dumps(e) + "\n" for e in entries).encode()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(whole[: len(whole) - cut] + noise)
        kept = runner.Kept(path)
        lost = whole[max(0, len(whole) - cut) :].count(b"\n")
        assert len(kept.entries) >= 3 - lost - (cut > 0)
        assert all(e in entries for e in kept.of({"p": "k"}))
        kept.add(entries[0])
        assert runner.Kept(path).entries == kept.entries


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ([], "names"),
        (["none-such"], "names"),
        (["lora", "--jobs", "0"], "jobs"),
        (["lora", "--jobs", "a"], "jobs"),
    ],
)
def test_the_command_refuses_in_one_sentence(monkeypatch, arguments, parameter):
    monkeypatch.setattr(sys, "argv", ["studies", *arguments])
    with pytest.raises(InputError, match=f"^{parameter}: got ") as caught:
        command.main()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_sentence(results, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["studies", "sst2-movies", "--sst2", str(results / "none")])
    with pytest.raises(InputError, match=r"^dataset: got "):
        command.main()


def test_an_unknown_study_is_refused():
    with pytest.raises(InputError, match=r"^name: got 'none-such'; accepted: a study of this repository"):
        load_study("none-such")
