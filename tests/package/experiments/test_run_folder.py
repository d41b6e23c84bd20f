"""What a run keeps: a killed run goes on, and no two runs mix."""

import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hybridft_utils import InputError, RunConfig, RunResult, load_tuning, run
from hybridft_utils.experiments.results import MethodResult
from hybridft_utils.experiments.run import build_classifier
from hybridft_utils.experiments.run_folder import RunFolder
from hybridft_utils.files import exclusive

THREE = {"methods": ["lora"], "seeds": [0, 1, 2], "resume": True}


def killed_at(line):
    """A report that stops the run at ``line``."""

    def report(given):
        if given == line:
            raise KeyboardInterrupt

    return report


def trainings(config):
    """The result of a run, and how many trainings it took."""
    lines = []
    result = run(config, lines.append)
    return result, sum(line.startswith("Epoch 1/1") for line in lines)


@pytest.fixture
def stopped(small):
    """A run that was killed after two of three seeds."""
    with pytest.raises(KeyboardInterrupt):
        run(small(**THREE), killed_at("\nlora, seed 2"))
    return small(**THREE)


def test_a_killed_run_goes_on_after_what_it_finished(small, stopped, tmp_path):
    whole, _ = trainings(small(**THREE, output_dir=str(tmp_path / "whole")))
    assert not (tmp_path / "out/results.json").exists()
    again, trained = trainings(stopped)
    assert trained == 1 and np.array_equal(again.correct("lora"), whole.correct("lora"))


def test_a_finished_run_is_not_trained_again(small, tmp_path):
    first, _ = trainings(small(**THREE))
    before = (tmp_path / "out/results.json").read_bytes()
    again, trained = trainings(small(**THREE))
    assert trained == 0 and again == first and (tmp_path / "out/results.json").read_bytes() == before
    assert trainings(small(**{**THREE, "resume": False}))[1] == 3


def test_a_mistyped_setting_loses_no_rows(small, stopped):
    with pytest.raises(KeyboardInterrupt):
        run(small(**THREE, rank=2), killed_at("\nlora, seed 1"))
    assert trainings(stopped)[1] == 1


def test_rows_of_changed_data_do_not_count(stopped, data_folder):
    path = data_folder / "train.csv"
    path.write_text(path.read_text().replace("film number 7", "film number 77"))
    assert trainings(stopped)[1] == 3


def test_rows_of_a_changed_base_model_do_not_count(stopped, model_folder):
    path = model_folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][4321, 5] += 0.125  # one value of 8192 rows
    save_file(tensors, path, metadata={"format": "pt"})
    assert trainings(stopped)[1] == 3


@pytest.mark.parametrize("finished", [False, True])
def test_a_deleted_tuning_is_trained_again(stopped, tmp_path, finished):
    if finished:
        trainings(stopped)
    shutil.rmtree(next((tmp_path / "out").glob("run-*/lora-seed0")))
    result, trained = trainings(stopped)
    assert trained == (1 if finished else 2)
    assert all((tmp_path / "out" / r.tuning / "tuning.json").is_file() for r in result.results if r.tuning)


@pytest.mark.parametrize("other", [{}, {"rank": 2}])
def test_a_second_run_that_is_stopped_leaves_the_first_whole(small, tmp_path, other):
    config = small(methods=["lora"], seeds=[0, 1])
    first, _ = trainings(config)
    out = tmp_path / "out"
    before = {p: p.read_bytes() for p in out.rglob("*") if p.suffix in (".json", ".safetensors")}
    with pytest.raises(KeyboardInterrupt):
        run(small(**{"methods": ["lora"], "seeds": [0, 1], **other}), killed_at("\nlora, seed 1"))
    assert RunResult.load(out / "results.json") == first
    assert {p: p.read_bytes() for p in before} == before
    row = next(r for r in first.results if r.tuning)
    fresh = build_classifier(config, first.labels)
    load_tuning(fresh, out / row.tuning)
    texts = config.load_data()["test"]["text"]
    assert fresh.predict_logits(texts).argmax(-1).tolist() == row.predictions


def test_a_run_beside_another_in_one_folder_is_refused(small, tmp_path):
    with (
        exclusive(tmp_path / "out", "output_dir"),
        pytest.raises(InputError, match=r"^output_dir: got ") as no,
    ):
        run(small(methods=["lora"]), None)
    assert "\n" not in str(no.value) and not list((tmp_path / "out").glob("run-*"))


def test_a_place_that_cannot_be_written_to_is_noticed_before_training(small, tmp_path):
    (tmp_path / "out").write_text("a file")
    lines = []
    with pytest.raises(
        InputError, match=r"^output_dir: got .*/out'; accepted: a place that can be written to"
    ):
        run(small(methods=["lora"]), lines.append)
    assert not lines and (tmp_path / "out").read_text() == "a file"


def test_a_full_disk_leaves_nothing_half_written(small, tmp_path, monkeypatch):
    first, _ = trainings(small(methods=["lora"]))
    fsync = os.fsync

    def full(descriptor):
        if (
            os.fstat(descriptor).st_size > 100_000
            or b"results" in os.readlink(f"/proc/self/fd/{descriptor}").encode()
        ):
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"No space left on device") as caught:
        run(small(methods=["full"]), None)
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.partial"))
    assert RunResult.load(tmp_path / "out/results.json") == first


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Settings, key and rows of a run, without a training."""
    output = tmp_path_factory.mktemp("rows")
    config = RunConfig(output_dir=str(output), resume=True)
    folder = RunFolder(config, "abc")
    for seed in range(3):
        folder.keep(MethodResult("lora", seed, {"accuracy": 0.5}, [0, 1], note="\u2028 cut here?"))
    return config, folder.path, folder.path.read_bytes()


@given(cut=st.integers(0, 400), noise=st.binary(max_size=12))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_row_is_measured_again_and_whole_ones_are_kept(kept, cut, noise):
    config, path, whole = kept
    path.write_bytes(whole[:-cut] + noise if cut else whole + noise)
    rows = RunFolder(config, "abc").rows
    lost = whole[len(whole) - cut :].count(b"\n")
    assert len(rows) >= 3 - lost - (1 if cut else 0)
    assert all(row.predictions == [0, 1] and row.test == {"accuracy": 0.5} for row in rows.values())
    path.write_bytes(whole)
    assert len(RunFolder(config, "abc").rows) == 3


@given(damage=st.binary(max_size=30) | st.sampled_from([b"{}", b"[]", b"null", b'{"results": 3}']))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_results_are_one_sentence(tmp_path, damage):
    (tmp_path / "results.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"^path: got ") as caught:
        RunResult.load(tmp_path / "results.json")
    assert "\n" not in str(caught.value)


SCRIPT = """
import sys
from hybridft_utils import RunConfig, run
run(RunConfig(**eval(sys.argv[1])))
"""


def launch_two(config, tmp_path):
    """``run(config)`` under ``accelerate launch`` on two processes; what they print."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "29513"}
    given = repr(config.model_dump())
    done = subprocess.run(
        [*command, tmp_path / "script.py", given], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_of_two_processes_one_writes(small, encoder_folder, tmp_path):
    """Full fine-tuning of an encoder, whose pooler no loss depends on."""
    printed = launch_two(small(model=str(encoder_folder), methods=["full", "lora"], batch_size=4), tmp_path)
    assert printed.count("full, seed 0: accuracy") == 1
    result = RunResult.load(tmp_path / "out/results.json")
    assert [r.method for r in result.results[-2:]] == ["full", "lora"]
    assert len(list((tmp_path / "out").rglob("tuning.json"))) == 2 and not list(tmp_path.rglob("*.partial"))


def test_two_processes_train_as_one_does(small, tmp_path):
    """Also where a batch cannot be halved: the last one has a single text."""
    config = small(methods=["full", "lora+prefix"], batch_size=3, train_size=16, epochs=2)
    launch_two(config, tmp_path)
    two = RunResult.load(tmp_path / "out/results.json")
    one = run(config.model_copy(update={"output_dir": str(tmp_path / "one")}), report=None)
    trained = [r for r in one.results if r.history]
    assert len(trained) == 2
    for r, other in zip(trained, (r for r in two.results if r.history), strict=True):
        for epoch, same in zip(r.history, other.history, strict=True):
            assert same == pytest.approx(epoch, rel=1e-5)


def test_an_error_comes_back_from_a_worker():
    error = InputError("rank", 0, "1 or more")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError and str(again) == str(error)
