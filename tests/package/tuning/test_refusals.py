"""What would be silently wrong is refused before the model is changed."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tiny_models import CONTEXT, DECODERS, FAMILIES, batch, jitter, largest, tiny

from hybridft_utils import (
    Adapter,
    BitFit,
    FullFineTuning,
    InputError,
    LoRA,
    Prefix,
    SoftPrompt,
    attach,
    load_tuning,
)

METHODS = (LoRA(2), Prefix(3), SoftPrompt(3), Adapter(4), FullFineTuning(), BitFit())


def refused(model, *methods, match, **options):
    modules, wanted = dict(model.named_modules()), [p.requires_grad for p in model.parameters()]
    with pytest.raises(InputError, match=match) as error:
        attach(model, *methods, **options)
    assert "\n" not in str(error.value)
    assert dict(model.named_modules()) == modules
    assert [p.requires_grad for p in model.parameters()] == wanted


@pytest.mark.parametrize("first", METHODS, ids=lambda m: m.kind)
def test_no_part_of_a_tuned_model_is_tuned_again(first):
    model = tiny("gpt2" if first.kind == "bitfit" else "llama")
    inner = model.base_model
    layer = inner.h[0].mlp if first.kind == "bitfit" else inner.layers[0].mlp
    tuning = attach(model, first)
    jitter(tuning)
    holder = torch.nn.ModuleList([torch.nn.Linear(2, 2), copy.deepcopy(inner)])
    shared = tiny("llama")
    if first.kind != "bitfit":
        shared.model.layers[0].mlp = layer
    for part in (model, inner, holder, copy.deepcopy(model), *([shared] if first.kind != "bitfit" else [])):
        refused(part, LoRA(2), match="model: got 'a model with a tuning attached, or a part of one'")
    tied = tiny("llama")
    tied.model.norm.weight = next(p for p in model.parameters() if p.ndim == 1)
    refused(tied, LoRA(2), match="a tuning attached")
    tuning.detach()
    attach(inner, LoRA(2)).detach()
    attach(model, LoRA(2)).merge()
    attach(model, LoRA(2))


def test_a_merged_model_with_parts_left_is_still_tuned():
    model = tiny("llama")
    attach(model, LoRA(2), Prefix(3)).merge()
    refused(model.model, LoRA(2), match="a tuning attached")


@pytest.mark.parametrize("method", [LoRA(2), LoRA(2, target_modules=("q_proj",)), Prefix(3), Adapter(4)])
def test_layers_that_are_one_module_are_refused(method):
    model = tiny("llama-gqa")
    model.model.layers[1] = model.model.layers[0]
    refused(model, method, match=r"layers\.0.* and .*layers\.1.*, which are one module")


def test_one_linear_layer_in_two_places_is_refused():
    model = tiny("llama-gqa")
    model.model.layers[1].mlp.up_proj = model.model.layers[0].mlp.up_proj
    refused(model, LoRA(2, target_modules=("up_proj",)), match="which are one module")
    tuning = attach(model, LoRA(2, target_modules=("down_proj",)), Prefix(3))
    jitter(tuning)
    model(**batch()).logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tuning.parameters())


@pytest.mark.parametrize("norm", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore")
def test_no_update_is_merged_into_a_weight_that_is_computed(norm):
    model = tiny("llama")
    norm(model.model.layers[0].mlp.up_proj)
    tuning = attach(model, LoRA(2))
    jitter(tuning)
    before = model(**batch()).logits
    with pytest.raises(InputError, match=r"merge\(\): got 'LoRA on .*up_proj'.*parametrised"):
        tuning.merge()
    assert torch.equal(model(**batch()).logits, before)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("method", [SoftPrompt(8), Prefix(8, positions="shift")], ids=lambda m: m.kind)
def test_no_position_is_past_the_context(kind, method):
    model = tiny(kind)
    attach(model, method)
    model(torch.ones(1, CONTEXT - 8, dtype=torch.long))
    with pytest.raises(InputError, match="57 tokens after 8 positions of the prompt or prefix"):
        model(torch.ones(1, CONTEXT - 7, dtype=torch.long))
    with pytest.raises(InputError, match="57 tokens after 8 positions"):
        model.generate(torch.ones(1, CONTEXT - 12, dtype=torch.long), max_new_tokens=9, min_new_tokens=9)


@given(tokens=st.integers(1, CONTEXT + 4), length=st.integers(1, CONTEXT - 1), shift=st.booleans())
@examples(max_examples=30, deadline=None)
def test_positions_fit_the_context_or_are_refused(tokens, length, shift):
    model = tiny("llama-gqa")
    attach(model, Prefix(length, positions="shift") if shift else SoftPrompt(length))
    seen = []
    rotary = model.model.rotary_emb
    rotary.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    try:
        model(torch.ones(1, tokens, dtype=torch.long))
    except InputError:
        assert tokens + length > CONTEXT
    else:
        assert tokens + length <= CONTEXT and seen[0].max() == tokens + length - 1


@pytest.mark.parametrize("kind", DECODERS)
def test_packed_texts_see_a_prefix_and_are_refused_with_a_soft_prompt(kind):
    texts = [batch("none", rows=1, tokens=n, seed=n)["input_ids"] for n in (5, 4)]
    packed = {
        "input_ids": torch.cat(texts, dim=1),
        "position_ids": torch.cat([torch.arange(5), torch.arange(4)])[None],
    }
    model = tiny(kind)
    tuning = attach(model, LoRA(2), Prefix(3))
    jitter(tuning)
    alone = torch.cat([model(t).logits for t in texts], dim=1)
    assert largest(model(**packed, use_cache=False).logits, alone) < 1e-5
    tuning.detach()
    tuning = attach(model, SoftPrompt(3))
    for positions in (packed["position_ids"], torch.arange(9)[None] + 1):
        with pytest.raises(InputError, match="position_ids: got 'texts packed into one row"):
            model(input_ids=packed["input_ids"], position_ids=positions)
    counted = model(input_ids=packed["input_ids"], position_ids=torch.arange(9)[None]).logits
    assert torch.equal(counted, model(packed["input_ids"]).logits)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), prompted=st.booleans())
@examples(max_examples=30, deadline=None)
def test_packed_texts_compute_what_each_computes_alone_or_are_refused(lengths, prompted):
    texts = [batch("none", rows=1, tokens=n, seed=i)["input_ids"] for i, n in enumerate(lengths)]
    packed = {
        "input_ids": torch.cat(texts, dim=1),
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
    }
    model = tiny("llama-gqa")
    jitter(attach(model, SoftPrompt(3)) if prompted else attach(model, LoRA(2), Prefix(3)))
    alone = torch.cat([model(text).logits for text in texts], dim=1)
    try:
        together = model(**packed, use_cache=False).logits
    except InputError:
        assert prompted and len(lengths) > 1
    else:
        assert largest(together, alone) < 1e-5


LINEARS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")


@given(shared=st.sets(st.sampled_from(LINEARS)), adapted=st.sets(st.sampled_from(LINEARS), min_size=1))
@examples(max_examples=25, deadline=None)
def test_every_part_on_shared_layers_gets_a_gradient_or_is_refused(shared, adapted):
    model = tiny("llama-gqa")
    first, second = model.model.layers
    for name in shared:
        holder, last = name.split(".")
        setattr(second.get_submodule(holder), last, first.get_submodule(name))
    method = LoRA(2, target_modules=tuple(sorted(adapted)))
    if shared & adapted:
        refused(model, method, match="which are one module")
    else:
        tuning = attach(model, method)
        jitter(tuning)
        model(**batch()).logits.sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tuning.parameters())


@pytest.mark.parametrize("pattern", ["rank_pattern", "alpha_pattern"])
def test_patterns_that_fit_nothing_are_refused(pattern):
    refused(tiny("llama"), LoRA(2, **{pattern: {"q_prj": 4}}), match=f"{pattern}: got 'q_prj'")
    lora = LoRA(2, target_modules=("v_proj",), **{pattern: {"q_proj": 4}})
    refused(tiny("llama"), lora, match=f"{pattern}: got 'q_proj'.*v_proj")


@given(
    targets=st.lists(
        st.sampled_from(["q_proj", "v_proj", "up_proj", "q_prj", "proj"]), min_size=1, unique=True
    ),
    ranks=st.dictionaries(
        st.sampled_from(["q_proj", "layers.1.mlp.up_proj", "mlp", "oops"]), st.integers(1, 4)
    ),
)
@examples(max_examples=40, deadline=None)
def test_every_ending_that_is_given_counts_or_is_refused(targets, ranks):
    model = tiny("llama-gqa")
    names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    adapted = [n for n in names if n.rsplit(".", 1)[-1] in targets]
    whole = all(any(n.endswith(f".{t}") for n in names) for t in targets)
    whole &= all(any(n.endswith(f".{r}") for n in adapted) for r in ranks)
    try:
        tuning = attach(model, LoRA(5, target_modules=tuple(targets), rank_pattern=ranks))
    except InputError:
        assert not whole
    else:
        assert whole
        found = {n: len(p) for n, p in tuning.named_parameters() if n.endswith("lora_A")}
        assert len(found) == len(adapted)
        for ending, rank in ranks.items():
            assert any(n.endswith(f".{ending}.lora_A") and r == rank for n, r in found.items())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"target_modules": 5}, "target_modules: got 5"),
        ({"target_modules": ("q_proj", 3)}, "target_modules: got"),
        ({"rank_pattern": 5}, "rank_pattern: got 5"),
        ({"alpha_pattern": {3: 1.0}}, "alpha_pattern: got"),
        ({"rank": 10**12}, "rank: got 1000000000000; accepted: at most .* times the width"),
    ],
)
def test_settings_of_another_kind_are_a_sentence(settings, match):
    with pytest.raises(InputError, match=match):
        attach(tiny("llama"), LoRA(**settings))


def test_models_that_cannot_be_trained_are_refused():
    for model in (None, "llama"):
        with pytest.raises(InputError, match=r"model: got .*a transformers model"):
            attach(model, LoRA(2))
    with torch.device("meta"):
        empty = type(tiny("llama"))(tiny("llama").config)
    with pytest.raises(InputError, match="meta device"):
        attach(empty, LoRA(2))
    whole = tiny("llama-gqa")
    layer = whole.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.data.to(torch.int8), requires_grad=False)
    refused(whole, FullFineTuning(), match="full of the quantised model.layers.0.mlp.up_proj.weight")


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_tied_head_can_be_trained(kind, tmp_path):
    model = tiny("llama" if kind == "llama-gqa" else kind)
    head = "cls.predictions.decoder" if kind == "bert" else "lm_head"
    tuning = attach(model, LoRA(2), also_train=(head,))
    jitter(tuning)
    embeddings = model.get_input_embeddings().weight
    assert any(p is embeddings for p in tuning.parameters())
    logits = model(**batch()).logits
    tuning.save(tmp_path)
    again = tiny("llama" if kind == "llama-gqa" else kind)
    load_tuning(again, tmp_path)
    assert torch.equal(again(**batch()).logits, logits)
