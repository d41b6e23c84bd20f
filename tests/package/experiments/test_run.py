"""Training and whole runs on tiny models."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from hybridft_utils import (
    InputError,
    LoRA,
    Prefix,
    PromptClassifier,
    PromptTemplate,
    RunConfig,
    RunResult,
    Verbalizer,
    attach,
    load_tuning,
    run,
)
from hybridft_utils.experiments.run import BAG_OF_WORDS, MAJORITY, build_classifier
from hybridft_utils.experiments.training import Split, train

WORDS = {"negative": ["terrible"], "positive": ["great"]}


def easy(n):
    """Texts that one word decides."""
    texts = [f"a {'great' if i % 2 else 'terrible'} film number {i}" for i in range(n)]
    return Split(texts, [i % 2 for i in range(n)])


@pytest.fixture
def classifier(llama, tokenizer):
    return PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))


@pytest.fixture
def data_folder(tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, n in (("train", 48), ("dev", 16), ("test", 20)):
        split = easy(n)
        pd.DataFrame({"text": split.texts, "label": split.labels}).to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_training_learns_and_leaves_the_base_alone(classifier):
    before = {n: p.clone() for n, p in classifier.named_parameters()}
    tuning = attach(classifier, LoRA(rank=4), Prefix(4))
    history = train(
        classifier, tuning, easy(64), easy(16), learning_rate=2e-2, epochs=6, batch_size=8, seed=0
    )
    assert history[-1].validation_accuracy > 0.9
    tuning.detach()
    for name, parameter in classifier.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_one_process_trains_with_one_precision_after_the_other(classifier):
    tuning = attach(classifier, LoRA(rank=2))
    losses = [
        train(classifier, tuning, easy(8), easy(4), learning_rate=1e-3, epochs=1, batch_size=4, precision=p)[
            0
        ].loss
        for p in ("fp32", "bf16", "fp32")
    ]
    assert all(0 < loss < 10 for loss in losses)


def test_the_best_epoch_is_kept(classifier):
    tuning = attach(classifier, LoRA(rank=4))
    validation = Split(["a great film", "a terrible film"], [0, 1])  # wrong labels: training must hurt
    history = train(
        classifier, tuning, easy(64), validation, learning_rate=1e-2, epochs=4, batch_size=8, seed=0
    )
    losses = [e.validation_loss for e in history]
    assert min(losses) != losses[-1]
    kept = torch.nn.functional.cross_entropy(
        classifier.predict_logits(validation.texts), torch.tensor(validation.labels)
    )
    assert kept.item() == pytest.approx(min(losses), rel=1e-5)


def test_same_seed_same_training(llama, tokenizer):
    histories = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        classifier = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))
        tuning = attach(classifier, LoRA(rank=2, dropout=0.1))
        histories.append(
            train(classifier, tuning, easy(24), easy(8), learning_rate=1e-2, epochs=1, seed=seed)
        )
        tuning.detach()
    assert histories[0] == histories[1] != histories[2]


def small(model_folder, data_folder, tmp_path, **settings):
    sizes = {"epochs": 1, "prefix_length": 4, "output_dir": str(tmp_path / "out")}
    return RunConfig(**{"model": str(model_folder), "dataset": str(data_folder), **sizes, **settings})


def test_a_run_end_to_end(model_folder, data_folder, tmp_path):
    methods = ["zero-shot", "head", "full", "lora", "prefix", "lora+prefix", "prompt", "adapter"]
    config = small(model_folder, data_folder, tmp_path, methods=methods, seeds=[0, 1])
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


def test_a_killed_run_goes_on_behind_what_it_finished(model_folder, data_folder, tmp_path):
    settings = {"methods": ["lora"], "seeds": [0, 1, 2], "resume": True}
    config = small(model_folder, data_folder, tmp_path, **settings)
    whole = run(
        small(model_folder, data_folder, tmp_path, **settings, output_dir=str(tmp_path / "whole")), None
    )

    def killed(line):
        if line == "\nlora, seed 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, killed)
    assert not (tmp_path / "out/results.json").exists()
    lines = []
    again = run(config, lines.append)
    assert sum(line.startswith("Epoch 1/1") for line in lines) == 1, "only the missing seed was trained"
    assert np.array_equal(again.correct("lora"), whole.correct("lora"))
    assert not (tmp_path / "out/finished.jsonl").exists()

    with pytest.raises(KeyboardInterrupt):
        run(config, killed)
    for other in ({"rank": 2}, {"resume": False}):
        lines = []
        changed = small(model_folder, data_folder, tmp_path, **{**settings, **other, "seeds": [0, 1]})
        run(changed, lines.append)
        assert sum(line.startswith("Epoch 1/1") for line in lines) == 2, other


def test_an_encoder_gets_a_head(encoder, masked_tokenizer, data_folder, tmp_path):
    folder = tmp_path / "encoder"
    encoder.save_pretrained(folder)
    masked_tokenizer.save_pretrained(folder)
    result = run(small(folder, data_folder, tmp_path, methods=["lora", "head"]), None)
    lora, head = result.results[-2:]
    assert head.trained == 32 * 2 + 2 and lora.trained > head.trained
    with pytest.raises(InputError, match=r"^methods: got 'zero-shot'"):
        run(small(folder, data_folder, tmp_path, methods=["zero-shot"]), None)
    with pytest.raises(InputError, match=r"^classifier: got 'prompt'"):
        run(small(folder, data_folder, tmp_path, classifier="prompt"), None)


def test_few_shot_subsets_are_balanced_and_redrawn(data_folder, model_folder, tmp_path):
    from hybridft_utils import load_reviews
    from hybridft_utils.experiments.run import subset

    rows = load_reviews(data_folder)["train"]
    first, again, other = (subset(rows, 10, seed) for seed in (0, 0, 1))
    assert first["text"][:] == again["text"][:] != other["text"][:]
    assert sum(first["label"]) == 5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"prefix_length": 64}, r"^prefix_length: got 64; accepted: less than the model's context of 64"),
        ({"train_size": 99}, r"^train_size: got 99; accepted: at most the split's 48 rows"),
        ({"label_words": {"bad": ["poor"], "good": ["fine"]}}, r"^label_words: got 'bad, good'"),
        ({"target_modules": ["nothing"]}, r"^target_modules: got .*nothing"),
        ({"text_column": "body"}, r"^text_column: got 'body'"),
        ({"model": "no/such/folder/here"}, r"^model: got"),
        ({"dataset": "no/such/folder/here"}, r"^dataset: got"),
    ],
)
def test_bad_settings_leave_nothing_behind(model_folder, data_folder, tmp_path, settings, match):
    methods = ["prefix"] if "prefix_length" in settings else ["lora"]
    config = small(model_folder, data_folder, tmp_path, methods=methods, **settings)
    with pytest.raises(InputError, match=match) as caught:
        run(config, None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_predictions_of_all_seeds_line_up(model_folder, data_folder, tmp_path):
    result = run(small(model_folder, data_folder, tmp_path, methods=["lora"], seeds=[3, 1]), None)
    rows = {r.seed: r.predictions for r in result.results if r.method == "lora"}
    truth = np.array(result.test_labels)
    assert (result.correct("lora")[0] == (np.array(rows[1]) == truth)).all()
    with pytest.raises(InputError, match=r"^method: got 'magic'"):
        result.correct("magic")
