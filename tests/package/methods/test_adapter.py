"""Bottleneck adapters: where they sit, how they start, what they add."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import FAMILIES, KINDS, LAYERS, WIDTH, batch, jitter, tiny

from hybridft_utils import Adapter, InputError, LoRA, attach
from hybridft_utils.methods.adapter import Bottleneck


@pytest.mark.parametrize("placement", ["sequential", "after-mlp", "parallel"])
@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_base_model_to_the_last_bit(kind, placement):
    inputs, model = batch(), tiny(kind)
    base = model(**inputs).logits
    tuning = attach(model, Adapter(5, placement=placement))
    assert torch.equal(model(**inputs).logits, base)
    jitter(tuning)
    assert not torch.equal(model(**inputs).logits, base)


def test_is_the_formula():
    network = Bottleneck(6, 3, scale=2.0)
    torch.nn.init.normal_(network.up.weight)
    x = torch.randn(2, 6)
    hidden = F.relu(x @ network.down.weight.T + network.down.bias)
    torch.testing.assert_close(network(x), 2 * (hidden @ network.up.weight.T + network.up.bias))


@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_places(kind, with_lora):
    """Sequential adapters read what the sublayer returns, parallel ones what it was given."""
    layer, attention, attention_out, mlp_in, mlp_out = {
        "llama-gqa": ("model.layers.1", "self_attn", "self_attn.o_proj", "mlp", "mlp.down_proj"),
        "gpt2": ("transformer.h.1", "attn", "attn.c_proj", "mlp", "mlp.c_proj"),
        "bert": (
            "bert.encoder.layer.1",
            "attention.self",
            "attention.output.dense",
            "intermediate",
            "output.dense",
        ),
    }[kind]
    for placement, places in (
        ("sequential", [(attention, attention_out), (mlp_in, mlp_out)]),
        ("after-mlp", [(mlp_in, mlp_out)]),
        ("parallel", [(mlp_in, mlp_out)]),
    ):
        model = tiny(kind)
        block = model.get_submodule(layer)
        methods = (Adapter(5, placement=placement, scale=3.0), *([LoRA(2)] if with_lora else []))
        tuning = attach(model, *methods)
        jitter(tuning)
        own = [p for p in tuning.parts if p.method == "adapter" and p.name.startswith(layer)]
        assert [p.name for p in own] == [f"{layer}.{end}.adapter" for _, end in places]
        for (entry, end), part in zip(places, own, strict=True):
            seen = {}
            first, last = block.get_submodule(entry), block.get_submodule(end)
            hooks = [
                first.register_forward_pre_hook(
                    lambda m, a, k, seen=seen: seen.update(x=(a or (k["hidden_states"],))[0]),
                    with_kwargs=True,
                ),
                last.register_forward_hook(lambda m, a, y, seen=seen: seen.update(y=y)),
                last.register_forward_hook(
                    lambda m, a, y, seen=seen: seen.update(plain=y),
                    prepend=True,  # before the adapter's hook
                ),
            ]
            model(**batch())
            source = seen["x"] if placement == "parallel" else seen["plain"]
            torch.testing.assert_close(seen["y"], seen["plain"] + part.module(source))
            assert part.module.scale == 3.0
            for hook in hooks:
                hook.remove()


@pytest.mark.parametrize("kind", FAMILIES)
def test_counts_are_the_closed_formula(kind):
    """2 d m + m + d for each adapter: two per layer, or one after or beside the feed-forward network."""
    one = 2 * WIDTH * 5 + 5 + WIDTH
    assert attach(tiny(kind), Adapter(5)).count().trained == LAYERS * 2 * one
    for placement in ("after-mlp", "parallel"):
        assert attach(tiny(kind), Adapter(5, placement=placement)).count().trained == LAYERS * one


def test_merging_lora_leaves_the_adapters():
    inputs, model = batch(), tiny("llama")
    tuning = attach(model, LoRA(2), Adapter(5))
    jitter(tuning, 0.03)
    count = tuning.count()
    assert count.by_method["adapter"] == LAYERS * 2 * (2 * WIDTH * 5 + 5 + WIDTH)
    before = model(**inputs).logits
    tuning.merge()
    torch.testing.assert_close(model(**inputs).logits, before, rtol=1e-5, atol=1e-5)
    assert tuning.count().by_method == {"adapter": count.by_method["adapter"]}


def test_half_precision_base():
    tuning = attach(tiny("llama").bfloat16(), Adapter(5), gating="unipelt")
    jitter(tuning)
    assert {p.dtype for p in tuning.parameters()} == {torch.float32}
    assert tuning.model(**batch()).logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bottleneck": 0}, "bottleneck: got 0; accepted: a whole number of at least 1."),
        (
            {"placement": "beside"},
            "placement: got 'beside'; accepted: 'sequential' or 'after-mlp' or 'parallel'.",
        ),
        ({"scale": 0}, "scale: got 0; accepted: a number above 0."),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(InputError) as error:
        Adapter(**settings)
    assert str(error.value) == sentence
