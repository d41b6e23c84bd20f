"""Training: it learns, it keeps the best epoch, it stops where it cannot work."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridft_utils import InputError, LoRA, Prefix, PromptClassifier, PromptTemplate, Verbalizer, attach
from hybridft_utils.experiments.splits import Split
from hybridft_utils.experiments.training import train

WORDS = {"negative": ["terrible"], "positive": ["great"]}


def test_training_learns_and_leaves_the_base_alone(classifier, easy):
    before = {n: p.clone() for n, p in classifier.named_parameters()}
    tuning = attach(classifier, LoRA(rank=4), Prefix(4))
    history = train(
        classifier, tuning, easy(64), easy(16), learning_rate=2e-2, epochs=6, batch_size=8, seed=0
    )
    assert history[-1].validation_accuracy > 0.9
    tuning.detach()
    for name, parameter in classifier.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_one_process_trains_with_one_precision_after_the_other(classifier, easy):
    tuning = attach(classifier, LoRA(rank=2))
    losses = [
        train(classifier, tuning, easy(8), easy(4), learning_rate=1e-3, epochs=1, batch_size=4, precision=p)[
            0
        ].loss
        for p in ("fp32", "bf16", "fp32")
    ]
    assert all(0 < loss < 10 for loss in losses)


def test_the_best_epoch_is_kept(classifier, easy):
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


def test_same_seed_same_training(llama, tokenizer, easy):
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


def test_a_loss_that_is_not_finite_ends_training_by_name(classifier, easy):
    tuning = attach(classifier, LoRA(rank=2))
    sentence = (
        r"^learning_rate: got \{'lora': 1e\+30\}; accepted: a rate at which the loss of lora stays finite"
    )
    with pytest.raises(InputError, match=sentence):
        train(classifier, tuning, easy(16), easy(4), learning_rate={"lora": 1e30}, batch_size=4)


def test_half_precision_is_refused_on_a_cpu(classifier, easy):
    tuning = attach(classifier, LoRA(rank=2))
    with pytest.raises(InputError, match=r"^precision: got 'fp16'; accepted: fp32 or bf16"):
        train(classifier, tuning, easy(8), easy(4), learning_rate=1e-3, precision="fp16")


NOT_FINITE = st.sampled_from([math.inf, -math.inf, math.nan]) | st.floats(max_value=-1e-300)


@given(
    name=st.sampled_from(["learning_rate", "weight_decay", "clip"]),
    value=NOT_FINITE,
    seed=st.integers(2**32) | st.integers(max_value=-1),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_that_train_nothing_are_refused(classifier, easy, name, value, seed):
    tuning = attach(classifier, LoRA(rank=2))
    before = {n: p.clone() for n, p in tuning.named_parameters()}
    try:
        for bad, parameter in (({name: value}, name), ({"seed": seed}, "seed")):
            with pytest.raises(InputError, match=f"^{parameter}: got "):
                train(classifier, tuning, easy(8), easy(4), **{"learning_rate": 1e-3, **bad})
        assert all(torch.equal(p, before[n]) for n, p in tuning.named_parameters())
    finally:
        tuning.detach()
