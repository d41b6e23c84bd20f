"""Training the model's own parameters: full fine-tuning, the head, the biases; and published hybrids."""

import pytest
import torch
from tiny_models import KINDS, LAYERS, WIDTH, batch, tiny
from torch import nn
from transformers import BertConfig, BertModel

from hybridft_utils import (
    Adapter,
    BitFit,
    FullFineTuning,
    HeadOnly,
    InputError,
    LoRA,
    Prefix,
    attach,
    mam,
    unipelt,
)


def rates(model, *methods, **options):
    """Each trained parameter's learning rate, where the full one is 1."""
    tuning = attach(model, *methods, **options)
    groups = tuning.parameter_groups(1.0)
    by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sum(len(g["params"]) for g in groups) == len(by_id) == len(tuning.parameters())
    return {n: by_id[id(p)] for n, p in tuning.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_full_fine_tuning_trains_everything(kind):
    model = tiny(kind)
    tuning = attach(model, FullFineTuning())
    assert tuning.count().trained == tuning.count().total == sum(p.numel() for p in model.parameters())
    assert tuning.count().percent == 100
    assert str(tuning.count()).endswith("(100.00 %)")
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "embeddings", "layer", "top"),
    [
        ("llama-gqa", "model.embed_tokens.weight", "model.layers.{}.mlp.up_proj.weight", "model.norm.weight"),
        ("gpt2", "transformer.wpe.weight", "transformer.h.{}.mlp.c_fc.weight", "transformer.ln_f.weight"),
        ("bert", "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.{}.output.dense.weight", "cls.predictions.bias"),
        ("bert-classifier", "bert.embeddings.LayerNorm.weight", "bert.encoder.layer.{}.output.dense.bias", "bert.pooler.dense.weight"),
    ],
)  # fmt: skip
def test_layer_decay(kind, embeddings, layer, top):
    """decay to the power of the distance from the last layer; the embeddings lie one below the first."""
    found = rates(tiny(kind), FullFineTuning(layer_decay=0.5))
    assert found[layer.format(1)] == 1.0
    assert found[layer.format(0)] == 0.5
    assert found[embeddings] == 0.25
    assert found[top] == 1.0
    assert len(found) == len(list(tiny(kind).parameters()))


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "bert-classifier"])
def test_freezing(kind):
    model = tiny(kind)
    found = rates(model, FullFineTuning(layer_decay=0.5, freeze_layers=1))
    assert not any("embed" in n or "wte" in n or "wpe" in n or ".0." in n for n in found)
    assert sum(".1." in n for n in found) == sum(".1." in n for n, _ in tiny(kind).named_parameters())
    every = rates(tiny(kind), FullFineTuning(freeze_layers=LAYERS))
    assert every and not any(".0." in n or ".1." in n for n in every)
    with pytest.raises(InputError, match="freeze_layers: got 3; accepted: at most the model's 2 layers"):
        attach(tiny(kind), FullFineTuning(freeze_layers=3))


def test_head_only():
    tuning = attach(tiny("bert-classifier"), HeadOnly())
    assert [n for n, _ in tuning.named_parameters()] == ["classifier.weight", "classifier.bias"]
    assert tuning.count().by_method == {"head": 2 * WIDTH + 2}
    with pytest.raises(InputError, match="a model with a head of its own"):
        attach(tiny("llama"), HeadOnly())  # its head is the embeddings' matrix


def test_bitfit():
    model = tiny("bert")
    tuning = attach(model, BitFit())
    assert {n.rsplit(".", 1)[-1] for n, _ in tuning.named_parameters()} == {"bias"}
    inner = [p for n, p in model.bert.named_parameters() if n.endswith("bias")]
    assert tuning.count().trained == sum(p.numel() for p in inner)
    assert next(attach(tiny("qwen2"), BitFit()).named_parameters())[0].endswith("q_proj.bias")
    with pytest.raises(InputError, match="LlamaForCausalLM has none"):
        attach(tiny("llama"), BitFit())


@pytest.mark.parametrize("method", [FullFineTuning(freeze_layers=1), HeadOnly(), BitFit()])
def test_only_what_is_named_changes_and_detaching_brings_it_back(method):
    inputs, model = batch(), tiny("bert-classifier")
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    base = model(**inputs).logits
    tuning = attach(model, method)
    optimizer = torch.optim.AdamW(tuning.parameter_groups(1e-2))
    model(**inputs, labels=torch.tensor([0, 1, 1])).loss.backward()
    optimizer.step()
    trained = {n for n, _ in tuning.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, start[name]) == (name not in trained), name
        assert (parameter.grad is not None) == (name in trained)
    changed = model(**inputs).logits
    with tuning.disabled():
        assert torch.equal(model(**inputs).logits, base)
    assert torch.equal(model(**inputs).logits, changed)
    tuning.detach()
    assert all(torch.equal(p, start[n]) for n, p in model.named_parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_rates_of_single_methods():
    model = tiny("bert-classifier")
    tuning = attach(model, LoRA(2), Prefix(3), BitFit(), also_train=("classifier",))
    kinds = {"lora": 1.0, "prefix": 2.0, "bitfit": 3.0, "also_train": 4.0}
    groups = {g["lr"]: sum(p.numel() for p in g["params"]) for g in tuning.parameter_groups(kinds)}
    assert groups == {kinds[k]: n for k, n in tuning.count().by_method.items()}
    assert groups[4.0] == 2 * WIDTH + 2


def test_mam():
    recipe = mam(prefix_length=5, bottleneck=7)
    assert recipe.methods == (Prefix(5, softmax="joint"), Adapter(7, placement="parallel", scale=4.0))
    tuning = attach(tiny("gpt2"), *recipe.methods, gating=recipe.gating)
    one = 2 * WIDTH * 7 + 7 + WIDTH
    assert tuning.count().by_method == {"prefix": LAYERS * 2 * 5 * WIDTH, "adapter": LAYERS * one}
    assert mam().methods[0].length == 30 and mam().methods[1].bottleneck == 512


def test_unipelt():
    recipe = unipelt(prefix_length=3, bottleneck=4, rank=2)
    model = tiny("bert-classifier")
    tuning = attach(model, *recipe.methods, gating=recipe.gating, also_train=("classifier",))
    model(**batch())
    gates = tuning.gates()
    # A layer has a prefix, two projections with LoRA and one adapter; each starts half open.
    assert len(gates) == LAYERS * 4
    assert all(g.shape == (3, 9, 1) and (g == 0.5).all() for g in gates.values())
    assert tuning.count().trained == sum(tuning.count().by_method.values())


def test_unipelt_has_the_sizes_of_the_paper():
    """Table 4 of Mao et al. 2022 on BERT-base: 295 K of LoRA, 184 K of prefix, 895 K of adapters."""
    one_layer = BertModel(BertConfig(num_hidden_layers=1, vocab_size=8))
    count = attach(one_layer, *unipelt().methods).count().by_method
    assert {kind: 12 * trained for kind, trained in count.items()} == {
        "lora": 294_912,
        "prefix": 184_320,
        "adapter": 894_528,
    }


def test_bad_settings():
    for made, sentence in (
        (lambda: FullFineTuning(layer_decay=0), "layer_decay: got 0"),
        (lambda: FullFineTuning(layer_decay=1.5), "layer_decay: got 1.5"),
        (
            lambda: FullFineTuning(freeze_layers=-1),
            "freeze_layers: got -1; accepted: a whole number of at least 0.",
        ),
    ):
        with pytest.raises(InputError) as error:
            made()
        assert str(error.value).startswith(sentence)


def test_a_head_around_the_model():
    """Names are seen from the module that the methods were attached to."""

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.head = tiny("llama").model, nn.Linear(WIDTH, 2)

        def forward(self, **inputs):
            return self.head(self.model(**inputs).last_hidden_state[:, -1])

    classifier = Classifier()
    tuning = attach(classifier, LoRA(2, target_modules="attention"), HeadOnly())
    names = [n for n, _ in tuning.named_parameters()]
    assert names[0] == "model.layers.0.self_attn.q_proj.lora_A" and names[-1] == "head.bias"
    classifier(**batch()).sum().backward()
    assert classifier.head.weight.grad.abs().max() > 0
