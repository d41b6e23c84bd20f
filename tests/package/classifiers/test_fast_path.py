"""What training leaves out changes neither loss nor gradient: compared with the plain formula, method by method."""

from contextlib import nullcontext
from functools import cache

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, KINDS, jitter
from torch import Tensor

from hybridft_utils import (
    Adapter,
    FullFineTuning,
    LoRA,
    Prefix,
    PromptClassifier,
    PromptTemplate,
    SoftPrompt,
    Tuning,
    Verbalizer,
    attach,
)
from hybridft_utils.classifiers import classifier as shared
from hybridft_utils.methods.lora import FusedLoRALinear, LoRALinear

METHODS = {
    "full": (FullFineTuning(),),
    "lora": (LoRA(4),),
    "prefix": (Prefix(3),),
    "prompt": (SoftPrompt(3),),
    "sequential": (Adapter(4),),
    "parallel": (Adapter(4, placement="parallel"),),
    "hybrid": (LoRA(4), Prefix(3), Adapter(4)),
}
WORDS = {"one token": ["terrible", "great"], "several tokens": ["extraordinarily terrible", "great fun"]}
PLAIN = {"negative": ["terrible"], "positive": ["great"]}
TEXTS = ["A film.", "Not a good film at all, and far too long.", "Fun", "Dull, dull, dull!"]


@cache
def speaking(kind: str) -> transformers.PreTrainedModel:
    """A tiny model with room for the shipped tokenizer's words, its weights large enough to matter."""
    config_class, model_class, sizes = KINDS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(
        getattr(transformers, config_class)(**{**sizes, "vocab_size": 8200})
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.double().eval()  # so that a difference is a mistake and not rounding


def plain_loss(classifier: PromptClassifier, texts: list[str], labels: Tensor) -> Tensor:
    """Every position of every layer, every word of the vocabulary, and LoRA as chapter 06 writes it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FusedLoRALinear, "forward", LoRALinear.forward)
        patched.setattr(shared, "only_slot_in_last_layer", lambda *_: nullcontext())
        return F.cross_entropy(classifier.logits(texts), labels)


def gradients(loss: Tensor, tuning: Tuning) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tuning.parameters(), materialize_grads=True))


@pytest.mark.parametrize("methods", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("kind", FAMILIES)
@settings(deadline=None, max_examples=6, database=None)
@given(data=st.data())
def test_loss_and_gradients_equal_the_plain_formula(kind, methods, tokenizer, masked_tokenizer, data) -> None:
    texts = data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=len(texts), max_size=len(texts))))
    low, high = WORDS[data.draw(st.sampled_from(sorted(WORDS)))]
    gateable = methods[0].kind not in ("full", "prompt")
    gating = data.draw(st.sampled_from([None, "unipelt"])) if gateable else None
    words = Verbalizer({"negative": [low], "positive": [high, "fine"]})
    own = masked_tokenizer if kind == "bert" else tokenizer
    classifier = PromptClassifier(speaking(kind), own, PromptTemplate(), words, max_length=40)
    tuning = attach(classifier, *methods, gating=gating)
    jitter(tuning)
    try:
        fast, slow = classifier.loss(texts, labels), plain_loss(classifier, texts, labels)
        ours, theirs = gradients(fast, tuning), gradients(slow, tuning)
    finally:
        tuning.detach()
    assert torch.allclose(fast, slow, rtol=1e-5)
    largest = max(float(g.abs().max()) for g in theirs)
    for (name, _), a, b in zip(tuning.named_parameters(), ours, theirs, strict=True):
        assert float((a - b).abs().max()) <= 1e-5 * largest, name


def test_last_layer_is_whole_under_gradient_checkpointing(tokenizer) -> None:
    torch.manual_seed(0)
    classifier = PromptClassifier(speaking("llama-gqa"), tokenizer, PromptTemplate(), Verbalizer(PLAIN), 40)
    tuning = attach(classifier, LoRA(4))
    jitter(tuning)
    labels = torch.tensor([0, 1, 1, 0])
    try:
        plain = gradients(classifier.loss(TEXTS, labels), tuning)
        classifier.train()
        classifier.model.gradient_checkpointing_enable({"use_reentrant": False})
        again = gradients(classifier.loss(TEXTS, labels), tuning)
    finally:
        classifier.model.gradient_checkpointing_disable()
        classifier.eval()
        tuning.detach()
    for a, b in zip(plain, again, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_last_layer_computes_one_position(tokenizer) -> None:
    classifier = PromptClassifier(speaking("llama-gqa"), tokenizer, PromptTemplate(), Verbalizer(PLAIN), 40)
    seen: list[int] = []
    layer = classifier.model.model.layers[-1]
    handle = layer.mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    classifier.loss(TEXTS, torch.tensor([0, 1, 1, 0]))
    handle.remove()
    assert seen == [1]
    assert not layer.mlp._forward_pre_hooks, "nothing stays on the model"


def test_gates_report_every_token(tokenizer) -> None:
    classifier = PromptClassifier(speaking("llama-gqa"), tokenizer, PromptTemplate(), Verbalizer(PLAIN), 40)
    tuning = attach(classifier, LoRA(4), Prefix(3), Adapter(4), gating="unipelt")
    try:
        classifier.logits(TEXTS)
        lengths = {tuple(gate.shape[:2]) for gate in tuning.gates().values()}
    finally:
        tuning.detach()
    assert len(lengths) == 1
