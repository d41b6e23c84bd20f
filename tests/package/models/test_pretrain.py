"""Pre-training: exact continuation after a kill, one run per folder, and what is refused."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from hybridft_utils import InputError, load_base
from hybridft_utils.models import pretrain, pretraining_folder
from hybridft_utils.models.pretrain import PretrainConfig
from hybridft_utils.models.pretraining_settings import FREE

WORDS = ["the", "a", "film", "was", "good", "bad", "long", "short", "dull", "and", "plot", "<br />", "It"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imdb")
    rng = np.random.default_rng(0)
    for split, rows in (("train", 120), ("unsupervised", 60)):
        texts = [" ".join(rng.choice(WORDS, size=rng.integers(5, 40))) for _ in range(rows)]
        pd.DataFrame({"text": texts, "label": -1}).to_parquet(folder / f"{split}.parquet")
    return folder


def config(data, folder, **changes):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "layers": 1, "heads": 2, "context": 16}
    steps = {"steps": 6, "warmup_steps": 2, "validate_every": 3, "checkpoint_every": 2, "log_every": 1}
    defaults = {
        "data": str(data),
        "output_dir": folder,
        "vocabulary_size": 300,
        "validation_reviews": 20,
        "batch_size": 4,
    }
    return PretrainConfig(**{**defaults, **sizes, **steps, **changes})


def test_the_first_loss_is_ln_of_the_vocabulary(data, tmp_path):
    pretrain.pretrain(config(data, tmp_path, steps=1))
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(300), rel=0.02)


def kill_at(step, monkeypatch):
    """Stop the run as a kill would, before ``step`` begins."""
    real = pretrain.schedule

    def stop(now, given):
        if now == step:
            raise KeyboardInterrupt
        return real(now, given)

    monkeypatch.setattr(pretrain, "schedule", stop)


def killed_run(data, folder, monkeypatch, step=4, **changes):
    with monkeypatch.context() as patch:
        kill_at(step, patch)
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain(config(data, folder, **changes))
    return folder


def read_log(file):
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing stopped; read-only."""
    folder = tmp_path_factory.mktemp("whole")
    pretrain.pretrain(config(data, folder))
    return folder


def same_model(one, other):
    models = [LlamaForCausalLM.from_pretrained(folder / "model").state_dict() for folder in (one, other)]
    return all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_killed_run_goes_on_exactly(step, data, whole, tmp_path, monkeypatch):
    killed_run(data, tmp_path, monkeypatch, step)
    pretrain.pretrain(config(data, tmp_path))
    assert same_model(whole, tmp_path)
    for name in ("log.jsonl", "model/training_log.jsonl"):
        assert read_log(tmp_path / name) == read_log(whole / name) and len(read_log(whole / name)) == 6
    kept = json.loads((whole / "model" / "tokenizer_config.json").read_text())
    assert kept["model_max_length"] == 16
    assert "held-out reviews" in (whole / "model" / "loss.svg").read_text()
    assert not list(tmp_path.glob(".*partial*"))


def test_the_log_is_whole_whatever_became_of_its_file(data, whole, tmp_path, monkeypatch):
    killed_run(data, tmp_path, monkeypatch)
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    (tmp_path / "log.jsonl").write_text('{"step": 1, "lo')
    pretrain.pretrain(config(data, tmp_path))
    assert read_log(tmp_path / "log.jsonl") == read_log(whole / "log.jsonl")


def test_the_shipped_format_loads(whole):
    model, tokenizer = load_base(whole / "model")
    assert model.dtype == torch.float32 and tokenizer("the film").input_ids[0] == tokenizer.bos_token_id


OTHER = {
    "seed": 1,
    "steps": 7,
    "learning_rate": 0.01,
    "matrix_learning_rate": 0.01,
    "weight_decay": 0.5,
    "batch_size": 3,
    "context": 8,
    "heads": 1,
    "hidden_size": 32,
    "layers": 2,
    "vocabulary_size": 301,
    "tokenizer": "characters",
    "validation_reviews": 21,
    "clip": 2.0,
    "warmup_steps": 1,
}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("state", ["killed", "finished"])
def test_a_folder_of_other_settings_is_refused(name, state, data, whole, tmp_path, monkeypatch):
    folder = whole if state == "finished" else killed_run(data, tmp_path, monkeypatch, 1)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(
        InputError, match=rf"^output_dir: .*begun with {name} .*{name} '?{OTHER[name]}"
    ) as caught:
        pretrain.pretrain(config(data, folder, **{name: OTHER[name]}))
    assert "\n" not in str(caught.value)
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_every_setting_decides_or_is_known_not_to(data, whole):
    kept = json.loads((whole / "settings.json").read_text())
    assert set(kept) - {"data"} == set(PretrainConfig.model_fields) - set(FREE)


def test_a_folder_of_other_data_is_refused(data, whole, tmp_path):
    for split in ("train", "unsupervised"):
        frame = pd.read_parquet(data / f"{split}.parquet")
        frame.loc[3, "text"] += " x"
        frame.to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(InputError, match="begun with data"):
        pretrain.pretrain(config(tmp_path, whole))


def test_a_finished_run_says_so_and_trains_nothing(data, whole, capsys, monkeypatch):
    before = (whole / "model" / "model.safetensors").read_bytes()
    kill_at(0, monkeypatch)
    pretrain.pretrain(config(data, whole, checkpoint_every=1))
    assert "finished run of these settings, 6 steps; nothing is trained" in capsys.readouterr().out
    assert (whole / "model" / "model.safetensors").read_bytes() == before


def test_a_folder_without_settings_is_refused(data, whole, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes())
    with pytest.raises(InputError, match=r"checkpoint\.pt but without settings\.json"):
        pretrain.pretrain(config(data, tmp_path))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["settings.json", "reviews.npz", "checkpoint.pt"]), cut=st.floats(0, 0.99))
def test_a_damaged_file_is_named(name, cut, data, whole, tmp_path):
    for file in ("settings.json", "reviews.npz", "checkpoint.pt"):
        (tmp_path / file).write_bytes((whole / file).read_bytes())
    content = (whole / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(cut * (len(content) - 2))])
    with pytest.raises(InputError, match=f"^output_dir: .*{name}") as caught:
        pretrain.pretrain(config(data, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["learning_rate", "matrix_learning_rate"])
def test_a_loss_that_is_not_finite_stops_the_run(name, data, tmp_path):
    with pytest.raises(InputError, match=r"^learning_rate: .*smaller rates|^model: .*NaN or infinity"):
        pretrain.pretrain(config(data, tmp_path, **{name: 1e30}))
    assert not (tmp_path / "model").exists()


NUMBERS = ("learning_rate", "matrix_learning_rate", "weight_decay", "clip")


@given(
    name=st.sampled_from(NUMBERS), value=st.sampled_from([math.nan, math.inf, -math.inf, "inf", "nan", -1])
)
def test_numbers_are_finite(name, value):
    with pytest.raises(ValueError, match=name):
        PretrainConfig(**{name: value})


def command(monkeypatch, capsys, *arguments):
    """What the command writes as its error, one sentence and exit code 2."""
    monkeypatch.setattr("sys.argv", ["pretrain", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        pretrain.main()
    lines = capsys.readouterr().err.split("\n")
    said = "".join(f"{line}\n" for line in lines if line and "tokens:" not in line)
    assert caught.value.code == 2 and said.count("\n") == 1, said
    return said


def test_the_command_refuses_in_one_sentence(data, whole, tmp_path, monkeypatch, capsys):
    def refused(*arguments):
        return command(monkeypatch, capsys, *arguments)

    assert "steps: got '0'; accepted: greater than or equal to 1." in refused("--steps", 0)
    assert "seed: got '-1'" in refused("--seed", -1)
    assert "learning_rate: got 'inf'" in refused("--learning_rate", "inf")
    assert "heads: got 3; accepted: heads of an even width" in refused("--heads", 3)
    assert "hold_out: got 'x'" in refused("--data", data, "--hold_out", "x", "--output_dir", tmp_path / "a")
    new = ("--output_dir", tmp_path / "run", "--vocabulary_size", 300, "--data")
    assert "data: got" in refused(*new, tmp_path / "nowhere")
    assert "train.parquet" in refused(*new, tmp_path)
    assert "validation_reviews: got 256" in refused(*new, data)
    small = ("--validation_reviews", 1, "--output_dir", tmp_path / "other", "--vocabulary_size", 300)
    assert "do not fill one row of 256 tokens" in refused("--data", data, *small)
    few = ("--validation_reviews", 60, "--output_dir", tmp_path / "few", "--vocabulary_size", 300)
    assert "batch_size: got 400" in refused("--data", data, *few, "--batch_size", 400)
    assert "begun with vocabulary_size 300" in refused("--data", data, "--output_dir", whole)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "output_dir: got" in refused("--data", data, "--output_dir", blocked)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"review": ["a", "b"]}, "with columns review.*a column text"),
        ({"text": ["a", None]}, "without a text in row 2"),
    ],
)
def test_data_without_texts_is_refused(columns, match, tmp_path):
    for split in ("train", "unsupervised"):
        pd.DataFrame(columns).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(InputError, match=match):
        pretrain.pretrain(config(tmp_path, tmp_path / "run"))


def test_a_full_disk_is_one_sentence(data, tmp_path, monkeypatch):
    def full(*_):
        raise InputError("file", "checkpoint.pt", "a place that can be written to (No space left on device)")

    monkeypatch.setattr(pretraining_folder, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        pretrain.pretrain(config(data, tmp_path))
    assert not (tmp_path / "model").exists()
