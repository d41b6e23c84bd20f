"""Pre-training: the batches, Muon, and exact continuation after a kill."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaForCausalLM

from hybridft_utils import InputError
from hybridft_utils.models import pretrain

WORDS = ["the", "a", "film", "was", "good", "bad", "long", "short", "dull", "and", "plot", "<br />", "It"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imdb")
    rng = np.random.default_rng(0)
    for split, rows in (("train", 120), ("unsupervised", 60)):
        texts = [" ".join(rng.choice(WORDS, size=rng.integers(5, 40))) for _ in range(rows)]
        pd.DataFrame({"text": texts, "label": -1}).to_parquet(folder / f"{split}.parquet")
    return folder


def config(data, folder, **settings):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "layers": 1, "heads": 2, "context": 16}
    steps = {"steps": 6, "warmup_steps": 2, "validate_every": 3, "checkpoint_every": 2, "log_every": 1}
    defaults = {
        "data": str(data),
        "output_dir": folder,
        "vocabulary_size": 300,
        "validation_reviews": 20,
        "batch_size": 4,
    }
    return pretrain.PretrainConfig(**{**defaults, **sizes, **steps, **settings})


def test_rows_begin_with_the_start_token_and_lose_only_the_end():
    reviews = [[1, 2, 3], [1, 5], [1, 7, 8, 9, 10, 11, 12], [1, 13]]
    rows = pretrain.pack(reviews, 4)
    assert rows.tolist() == [[1, 2, 3, 1], [1, 5, 1, 7], [1, 8, 9, 10], [1, 11, 12, 1]]


def test_texts_lose_tags_and_case(data):
    texts = pretrain.read_texts(str(data))
    assert len(texts) == 180 and not any("<" in t or t != t.lower() or "  " in t for t in texts)


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(pretrain.orthogonalise(torch.randn(3, 8, 20)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_is_torchs_muon_up_to_its_precision():
    torch.manual_seed(0)
    start, gradient = torch.randn(12, 8), torch.randn(12, 8)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    steps = [
        pretrain.Muon([ours], lr=0.02, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, nesterov=True),
    ]
    for parameter, optimizer in zip((ours, theirs), steps, strict=True):
        for scale in (1.0, 0.5, -2.0):
            parameter.grad = gradient * scale
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() / moved < 0.05


def test_the_first_loss_is_ln_of_the_vocabulary(data, tmp_path):
    pretrain.pretrain(config(data, tmp_path, steps=1))
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(300), rel=0.02)


def test_a_killed_run_goes_on_exactly(data, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pretrain.pretrain(config(data, whole))
    real = pretrain.schedule

    def kill_at_five(step, settings):
        if step == 4:
            raise KeyboardInterrupt
        return real(step, settings)

    monkeypatch.setattr(pretrain, "schedule", kill_at_five)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(config(data, killed))
    monkeypatch.setattr(pretrain, "schedule", real)
    pretrain.pretrain(config(data, killed))
    models = [LlamaForCausalLM.from_pretrained(f / "model").state_dict() for f in (whole, killed)]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]), name
    logs = [
        [json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()] for f in (whole, killed)
    ]
    for one, other in zip(*logs, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }
    kept = json.loads((whole / "model" / "tokenizer_config.json").read_text())
    assert kept["model_max_length"] == 16 and (whole / "model" / "training_log.jsonl").is_file()
    assert "held-out reviews" in (whole / "model" / "loss.svg").read_text()


def test_bad_input(data, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match=r"^data: .*train.parquet"):
        pretrain.read_texts(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["pretrain", "--steps", "0"])
    with pytest.raises(SystemExit) as caught:
        pretrain.main()
    assert caught.value.code == 2
    assert "steps: got '0'; accepted: greater than or equal to 1." in capsys.readouterr().err
