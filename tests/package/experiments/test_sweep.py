"""Sweeps: every combination runs, a stopped sweep goes on, failures are named."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hybridft_utils import InputError, sweep

TINY = {"methods": ["lora"], "seeds": [0], "train_size": 8, "validation_size": 8, "epochs": 1}


@pytest.fixture
def ran(monkeypatch):
    """Stands in for papermill: records the runs, fails for rank 3, else copies a small result."""
    calls = []

    def execute_notebook(source, target, parameters, **options):
        import papermill

        calls.append(parameters)
        if parameters["rank"] == 3:
            raise papermill.PapermillExecutionError(0, 1, "", "InputError", "rank: no.", [])
        result = {"config": {}, "labels": ["a", "b"], "test_labels": [0, 1], "provenance": {}}
        row = {"method": "lora", "seed": 0, "test": {"accuracy": 0.5, "macro_f1": 0.5}, "predictions": [0, 0]}
        (target.parent / "results.json").write_text(json.dumps({**result, "results": [row]}))

    monkeypatch.setattr("papermill.execute_notebook", execute_notebook)
    return calls


def test_every_combination_once_and_only_what_is_missing(ran, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        first = sweep({"rank": [1, 2], "alpha": [4.0]}, output_dir=tmp_path, executor=executor)
        assert first[["rank", "alpha", "accuracy"]].values.tolist() == [[1, 4, 50], [2, 4, 50]]
        more = sweep({"rank": [1, 2, 4], "alpha": [4.0]}, output_dir=tmp_path, executor=executor)
    assert [c["rank"] for c in ran] == [1, 2, 4] and len(more) == 3


def test_a_failed_run_is_named_and_does_not_stop_the_others(ran, tmp_path):
    with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match=r"runs 000 failed.*rank: no"):
        sweep({"rank": [3, 4]}, output_dir=tmp_path, executor=executor)
    assert [c["rank"] for c in ran] == [3, 4] and (tmp_path / "001/results.json").is_file()


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"rank": 2}, "grid: got 'rank: 2'; accepted: a list"),
        ({"rank": []}, "grid: got 'rank: .*a list"),
        ({"rank": [2, 0]}, "rank: got 0"),
        ({"colour": ["red"]}, "colour: got 'red'; accepted: no such parameter"),
    ],
)
def test_bad_grids_are_refused_before_anything_runs(ran, tmp_path, grid, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        sweep(grid, output_dir=tmp_path / "new")
    assert not ran and not (tmp_path / "new").exists()


def command(root, *given):
    return subprocess.run([sys.executable, root / "tools/sweep.py", *given], capture_output=True, text=True)


def test_the_command_runs_two_side_by_side(root, tmp_path):
    given = ["--grid", '{"rank": [1, 2]}', "--settings", json.dumps(TINY), "--jobs", "2"]
    done = command(root, *given, "--output_dir", str(tmp_path))
    assert done.returncode == 0 and "trained" in done.stdout, done.stderr
    assert (tmp_path / "sweep.csv").read_text().count("lora") == 2
    assert (tmp_path / "000/out.ipynb").is_file() and (tmp_path / "001/lora-seed0").is_dir()


@pytest.mark.parametrize("grid", ["{", '{"rank": [0]}'])
def test_the_command_refuses_in_one_sentence(root, tmp_path, grid):
    done = command(root, "--grid", grid, "--output_dir", str(tmp_path / "new"))
    assert done.returncode == 1 and "; accepted: " in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
