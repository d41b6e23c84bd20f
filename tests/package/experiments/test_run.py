"""Whole runs on tiny models."""

import json

import numpy as np
import pytest
import torch

from hybridft_utils import InputError, RunResult, load_tuning, run
from hybridft_utils.experiments.run import BAG_OF_WORDS, MAJORITY, build_classifier


def test_a_run_end_to_end(small, easy, tmp_path):
    methods = ["zero-shot", "head", "full", "lora", "prefix", "lora+prefix", "prompt", "adapter"]
    config = small(methods=methods, seeds=[0, 1])
    lines = []
    result = run(config, lines.append)
    table = result.table()
    assert list(table.index) == [MAJORITY, BAG_OF_WORDS, *methods]
    assert table.loc[MAJORITY, "accuracy"] == 50 and table.loc[BAG_OF_WORDS, "accuracy"] == 100
    assert any(line.startswith("Epoch 1/1 - Loss: ") for line in lines)
    assert table.loc["lora+prefix", "trained"] == table.loc[["lora", "prefix"], "trained"].sum()
    assert result.correct("lora").shape == (2, 20)

    saved = RunResult.load(tmp_path / "out" / "results.json")
    assert saved == result
    made = saved.provenance
    assert made["data"]["train"]["rows"] == 48 and made["versions"]["torch"] == torch.__version__
    assert made["command"].startswith("papermill notebooks/10_sentiment_run.ipynb out.ipynb -y ")
    assert str(tmp_path) not in json.dumps([made, saved.config])

    hybrid = next(r for r in result.results if r.method == "lora+prefix")
    fresh = build_classifier(config, result.labels)
    load_tuning(fresh, tmp_path / "out" / hybrid.tuning)
    texts = easy(20).texts
    assert fresh.predict_logits(texts).argmax(-1).tolist() == hybrid.predictions


def test_an_encoder_gets_a_head(small, encoder_folder):
    result = run(small(model=str(encoder_folder), methods=["lora", "head"]), None)
    lora, head = result.results[-2:]
    assert head.trained == 32 * 2 + 2 and lora.trained > head.trained
    with pytest.raises(InputError, match=r"^methods: got 'zero-shot'"):
        run(small(model=str(encoder_folder), methods=["zero-shot"]), None)
    with pytest.raises(InputError, match=r"^classifier: got 'prompt'"):
        run(small(model=str(encoder_folder), classifier="prompt"), None)


LATE = {"methods": ["lora", "prefix"]}


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            {**LATE, "prefix_length": 64},
            r"prefix_length: got 64; accepted: less than the model's context of 64",
        ),
        ({"methods": ["lora", "prompt"], "prompt_length": 64}, r"prompt_length: got 64"),
        ({"methods": ["lora", "bitfit"]}, r"methods: got .*[Bb]itFit"),
        ({"methods": ["lora", "zero-shot"], "classifier": "head"}, r"methods: got 'zero-shot'; accepted: "),
        ({"precision": "fp16"}, r"precision: got 'fp16'; accepted: fp32 or bf16"),
        ({"learning_rate": 1e30}, r"learning_rate: got .*; accepted: a rate at which the loss of lora stays"),
        ({"learning_rate": {"loar": 1e-3}}, r"learning_rate: got 'loar'"),
        ({"train_size": 99}, r"train_size: got 99; accepted: at most the split's 48 rows"),
        ({"train_size": 1}, r"train_size: got 1; accepted: 2 to 46 of the split's 48 rows, or all of them"),
        ({"train_size": 47}, r"train_size: got 47; accepted: 2 to 46 of"),
        ({"validation_size": 99}, r"validation_size: got 99; accepted: at most the split's 16 rows"),
        ({"validation_size": 1}, r"validation_size: got 1; accepted: 2 to 14 of"),
        ({"validation_size": 15}, r"validation_size: got 15; accepted: 2 to 14 of"),
        ({"label_words": {"bad": ["poor"], "good": ["fine"]}}, r"label_words: got 'bad, good'"),
        ({"target_modules": ["nothing"]}, r"target_modules: got .*nothing"),
        ({"text_column": "body"}, r"text_column: got 'body'"),
        ({"model": "no/such/folder/here"}, r"model: got"),
        ({"dataset": "no/such/folder/here"}, r"dataset: got"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(small, tmp_path, settings, match):
    lines = []
    with pytest.raises(InputError, match=f"^{match}") as caught:
        run(small(**{"methods": ["lora"], **settings}), lines.append)
    assert "\n" not in str(caught.value) and not any(line.startswith("Epoch") for line in lines)
    assert not list(tmp_path.glob("out/*"))


def test_zero_shot_alone_is_a_run(small):
    table = run(small(methods=["zero-shot"], save_tunings=False), None).table()
    assert list(table.index) == [MAJORITY, BAG_OF_WORDS, "zero-shot"]


def test_the_data_of_an_encoder_need_no_label_words(small, encoder_folder, data_folder):
    for path in data_folder.iterdir():
        path.write_text(path.read_text().replace(",0\n", ",dull\n").replace(",1\n", ",fine\n"))
    assert run(small(model=str(encoder_folder), methods=["lora"]), None).labels == ["dull", "fine"]


def test_predictions_of_all_seeds_line_up(small):
    result = run(small(methods=["lora"], seeds=[3, 1]), None)
    rows = {r.seed: r.predictions for r in result.results if r.method == "lora"}
    truth = np.array(result.test_labels)
    assert (result.correct("lora")[0] == (np.array(rows[1]) == truth)).all()
    with pytest.raises(InputError, match=r"^method: got 'magic'"):
        result.correct("magic")
