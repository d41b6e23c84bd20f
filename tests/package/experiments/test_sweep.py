"""Sweeps: every combination runs, a stopped sweep goes on, failures are named."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from hybridft_utils import InputError, RunConfig, RunResult, load_base, sweep
from hybridft_utils.evidence.provenance import base_fingerprint
from hybridft_utils.experiments.results import MethodResult
from hybridft_utils.experiments.run_folder import run_key

module = sys.modules["hybridft_utils.experiments.sweep"]

TINY = {"methods": ["lora"], "seeds": [0], "train_size": 8, "validation_size": 8, "epochs": 1}


@pytest.fixture
def settings(small):
    """A run that can be started on tiny data; what is measured is not looked at."""
    made = small(methods=["lora"]).model_dump(exclude_defaults=True)
    del made["output_dir"]
    return made


@pytest.fixture
def ran(monkeypatch):
    """Stands in for papermill: records the runs, fails for rank 3, is killed for rank 5, else a small result."""
    calls = []

    def run(command, **options):
        given = json.loads(command[command.index("-y") + 1])
        calls.append(given)
        if given["rank"] in (3, 5):
            code, said = (1, "Traceback\nInputError: rank: no.\n") if given["rank"] == 3 else (-9, "")
            return subprocess.CompletedProcess(command, code, "", said)
        config = RunConfig(**given)
        key = run_key(config, config.load_data(), base_fingerprint(*load_base(config.model)))
        row = MethodResult("lora", 0, {"accuracy": 0.5, "macro_f1": 0.5}, [0, 0])
        made = RunResult({}, ["a", "b"], [0, 1], [row], {"key": key})
        made.save(Path(config.output_dir) / "results.json")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run, DEVNULL=None))
    return calls


def test_every_combination_once_and_only_what_is_missing(ran, settings, tmp_path):
    given = {"settings": settings, "output_dir": tmp_path / "sweep"}
    first = sweep({"rank": [1, 2], "alpha": [4.0]}, **given)
    assert first[["rank", "alpha", "accuracy"]].values.tolist() == [[1, 4, 50], [2, 4, 50]]
    more = sweep({"rank": [1, 2, 4], "alpha": [4.0]}, **given)
    assert [c["rank"] for c in ran] == [1, 2, 4] and len(more) == 3


def test_changed_data_or_weights_and_damaged_results_run_again(
    ran, settings, tmp_path, data_folder, model_folder
):
    def again():
        before = len(ran)
        sweep({"rank": [1]}, settings=settings, output_dir=tmp_path / "sweep")
        return len(ran) - before

    assert [again(), again()] == [1, 0]
    path = data_folder / "test.csv"
    path.write_text(path.read_text().replace("number 3", "number 33"))
    assert [again(), again()] == [1, 0]
    path = model_folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert [again(), again()] == [1, 0]
    for damage in ("", "{", '{"results": []}', "null"):
        (tmp_path / "sweep/000/results.json").write_text(damage)
        assert [again(), again()] == [1, 0], damage


def test_failed_and_killed_runs_are_named_and_do_not_stop_the_others(ran, settings, tmp_path):
    with pytest.raises(InputError, match=r"runs 000, 001 failed.*000: InputError: rank: no"):
        sweep({"rank": [3, 5, 4]}, settings=settings, output_dir=tmp_path)
    assert sorted(c["rank"] for c in ran) == [3, 4, 5] and (tmp_path / "002/results.json").is_file()


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({}, "grid: got {}; accepted: a mapping with at least one name"),
        ([], "grid: got \\[\\]"),
        (None, "grid: got None"),
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
    assert (tmp_path / "000/out.ipynb").is_file() and list((tmp_path / "001").glob("run-*/lora-seed0"))


@pytest.mark.parametrize("jobs", [0, -1, "abc", 1.5, True, None])
def test_a_number_of_jobs_that_is_none_is_refused(ran, tmp_path, jobs):
    with pytest.raises(InputError, match=r"^jobs: got .*; accepted: a whole number from 1"):
        sweep({"rank": [1]}, output_dir=tmp_path / "new", jobs=jobs)
    assert not ran and not (tmp_path / "new").exists()


COMMANDS = {
    "grid": ["--grid", "{"],
    "grid of none": ["--grid", "{}"],
    "no grid": [],
    "settings": ["--grid", '{"rank": [1]}', "--settings", "null"],
    "rank": ["--grid", '{"rank": [0]}'],
    "jobs": ["--grid", '{"rank": [1]}', "--jobs", "abc"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_refuses_in_one_sentence(root, tmp_path, name, monkeypatch, capsys):
    given = [*COMMANDS[name], "--output_dir", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(root / "tools/sweep.py"), run_name="__main__")
    sentence = str(ended.value)
    assert sentence.startswith(f"{name.split()[-1] if name == 'no grid' else name.split()[0]}: got ")
    assert "; accepted: " in sentence and "\n" not in sentence and not (tmp_path / "new").exists()
