"""LoRA: exactness at the start, merging, targets, starts, refusals."""

import math

import pytest
import torch
from tiny_models import CLASSIFIERS, FAMILIES, KINDS, LAYERS, WIDTH, batch, jitter, largest, tiny
from transformers import AutoModel

from hybridft_utils import InputError, LoRA, attach
from hybridft_utils.methods.lora import LoRALinear


@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_base_model_to_the_last_bit(kind):
    inputs, model = batch(), tiny(kind)
    base = model(**inputs).logits
    attach(model, LoRA(rank=3))
    assert torch.equal(model(**inputs).logits, base)


def test_is_the_formula():
    base = torch.nn.Linear(5, 4)
    layer = LoRALinear(base, rank=2, alpha=6)
    torch.nn.init.normal_(layer.lora_B)
    x = torch.randn(3, 5)
    expected = x @ base.weight.T + base.bias + 6 / 2 * (x @ layer.lora_A.T) @ layer.lora_B.T
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.delta(), 3 * layer.lora_B @ layer.lora_A)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_unmerged_and_is_an_ordinary_model(kind, tmp_path):
    # A classifier's two logits are small differences of large terms: over 48 rows the largest is not.
    inputs, model = batch(rows=48 if kind in CLASSIFIERS else 3), tiny(kind)
    modules = {n: type(m) for n, m in model.named_modules()}
    required = {n: p.requires_grad for n, p in model.named_parameters()}
    tuning = attach(model, LoRA(rank=3))
    jitter(tuning, 0.03)
    unmerged = model(**inputs).logits
    assert tuning.merge() is model
    assert largest(model(**inputs).logits, unmerged) < 1e-6
    assert largest(tiny(kind)(**inputs).logits, unmerged) > 1e-3
    assert {n: type(m) for n, m in model.named_modules()} == modules
    assert {n: p.requires_grad for n, p in model.named_parameters()} == required
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert vars(model).keys() == vars(tiny(kind)).keys()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_is_exact_but_for_rounding(kind):
    """In float64, whose rounding is 2e9 times finer, so is the difference."""
    inputs, model = batch(), tiny(kind).double()
    tuning = attach(model, LoRA(rank=3))
    jitter(tuning, 0.03)
    unmerged = model(**inputs).logits
    tuning.merge()
    assert largest(model(**inputs).logits, unmerged) < 1e-14


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("rank", [1, 5])
def test_counts_are_the_closed_formula(kind, rank):
    """r (d_in + d_out) for each layer."""
    model = tiny(kind)
    shapes = {
        "llama-gqa": [(32, 32), (32, 16), (32, 16), (32, 32), (32, 40), (32, 40), (40, 32)],
        "gpt2": [(32, 96), (32, 32), (32, 128), (128, 32)],
        "bert": [(32, 32)] * 4 + [(32, 40), (40, 32)],
    }[kind]
    base = sum(p.numel() for p in model.parameters())
    count = attach(model, LoRA(rank)).count()
    assert count.trained == LAYERS * rank * sum(i + o for i, o in shapes)
    assert count.total == base + count.trained
    assert count.by_method == {"lora": count.trained}


def test_targets():
    def targeted(chosen):
        model = tiny("llama")
        attach(model, LoRA(rank=1, target_modules=chosen))
        return sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, LoRALinear)})

    assert targeted("attention") == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert targeted("query-value") == ["q_proj", "v_proj"]
    assert targeted("mlp") == ["down_proj", "gate_proj", "up_proj"]
    assert targeted("all-linear") == sorted([*targeted("attention"), *targeted("mlp")])
    assert targeted(["q_proj", "v_proj"]) == ["q_proj", "v_proj"]
    assert targeted("lm_head") == ["lm_head"]
    model = tiny("llama")
    attach(model, LoRA(rank=1, target_modules=("layers.1.self_attn.q_proj",)))
    assert [n for n, m in model.named_modules() if isinstance(m, LoRALinear)] == [
        "model.layers.1.self_attn.q_proj"
    ]


def test_starts():
    torch.manual_seed(0)
    kaiming = attach(tiny("llama"), LoRA(rank=16)).state_dict()
    gaussian = attach(tiny("llama"), LoRA(rank=16, init="gaussian")).state_dict()
    name = "model.layers.0.self_attn.q_proj.lora_A"
    bound = 1 / math.sqrt(WIDTH)  # of the uniform distribution
    assert bound * 0.9 < kaiming[name].abs().max() <= bound
    assert gaussian[name].std().item() == pytest.approx(1 / 16, rel=0.2)
    assert all(not t.any() for n, t in (kaiming | gaussian).items() if n.endswith("lora_B"))


def test_single_modules_with_another_rank_and_alpha():
    model = tiny("gpt2")
    pattern = {"h.0.attn.c_attn": 7}
    tuning = attach(model, LoRA(rank=2, alpha=8, rank_pattern=pattern, alpha_pattern={"mlp.c_fc": 1.0}))
    layers = {p.name: p.module for p in tuning.parts}
    assert len(layers["transformer.h.0.attn.c_attn"].lora_A) == 7
    assert len(layers["transformer.h.1.attn.c_attn"].lora_A) == 2
    assert layers["transformer.h.0.attn.c_attn"].scaling == 8 / 7
    assert layers["transformer.h.1.mlp.c_fc"].scaling == 1 / 2


def test_dropout_only_in_training():
    model = tiny("llama")
    tuning = attach(model, LoRA(dropout=0.5))
    jitter(tuning)
    inputs = batch()
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base(dtype):
    """A, B and the gates stay in float32; the model still answers in its own precision."""
    model = tiny("llama").to(dtype)
    tuning = attach(model, LoRA())
    assert {p.dtype for p in tuning.parameters()} == {torch.float32}
    assert model.model.layers[0].self_attn.q_proj.base.weight.dtype == dtype
    jitter(tuning)
    unmerged = model(**batch()).logits
    assert unmerged.dtype == dtype
    tuning.merge()
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert largest(model(**batch()).logits.float(), unmerged.float()) < 5e-2


def test_a_bare_model():
    model = AutoModel.from_config(tiny("bert").config).eval()
    inputs = batch()
    base = model(**inputs).last_hidden_state
    tuning = attach(model, LoRA())
    assert torch.equal(model(**inputs).last_hidden_state, base)
    jitter(tuning)
    assert not torch.equal(model(**inputs).last_hidden_state, base)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rank": 0}, "rank: got 0; accepted: a whole number of at least 1."),
        ({"rank": 2.5}, "rank: got 2.5"),
        ({"rank": True}, "rank: got True"),
        ({"alpha": 0}, "alpha: got 0; accepted: a number above 0."),
        ({"alpha": "16"}, "alpha: got '16'"),
        ({"alpha": math.nan}, "alpha: got nan"),
        ({"dropout": 1.0}, "dropout: got 1.0"),
        ({"init": "zeros"}, "init: got 'zeros'; accepted: 'kaiming' or 'gaussian'."),
        ({"rank_pattern": {"q_proj": 0}}, "rank: got 0"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(InputError) as error:
        LoRA(**settings)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("targets", ["query", ("q_proj", "typo"), (), "embed_tokens"])
def test_unknown_targets(targets):
    with pytest.raises(InputError, match=r"target_modules.*q_proj, up_proj, v_proj"):
        attach(tiny("llama"), LoRA(target_modules=targets))


def test_what_cannot_be_merged_is_refused_and_stays():
    model = tiny("llama")  # lm_head is tied to the embeddings
    tuning = attach(model, LoRA(target_modules=("lm_head", "q_proj")))
    jitter(tuning)
    before = model(**batch()).logits
    with pytest.raises(InputError, match=r"lm_head.*tied"):
        tuning.merge()
    assert torch.equal(model(**batch()).logits, before)
    gated = attach(tiny("llama"), LoRA(), gating="unipelt")
    with pytest.raises(InputError, match="gated LoRA"):
        gated.merge()
