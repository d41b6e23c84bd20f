"""Prefix-tuning: both softmaxes, gates, starts, positions, reparametrisation."""

import math

import pytest
import torch
from tiny_models import CONTEXT, DECODERS, KINDS, LAYERS, batch, jitter, largest, real, tiny
from transformers.integrations import sdpa_attention
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from hybridft_utils import InputError, Prefix, attach
from hybridft_utils.methods.prefix import RANDOM_STD
from hybridft_utils.methods.recorded_keys import record_keys_and_values


def test_attention_is_the_mixture_of_two_attentions():
    """Of a joint softmax: (1 - lambda) Attn + lambda Attn_prefix, by hand for every token, with a gate."""
    model = tiny("gpt2")
    tuning = attach(model, Prefix(3, softmax="joint", gated=True))
    prefix = tuning.parts[0].module
    prefix.set_gate(0.7)
    attention = model.transformer.h[0].attn
    x = torch.randn(1, 6, 32)
    mask = torch.ones(1, 1, 6, 6).tril().bool()
    got, _ = attention(x, attention_mask=mask)

    q, k, v = (t.view(6, 4, 8).transpose(0, 1) for t in attention.c_attn(x)[0].split(32, dim=-1))
    own = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(~mask[0], -torch.inf)
    front = q @ prefix.key.transpose(1, 2) / math.sqrt(8)
    on_prefix = 0.7 * front.exp().sum(-1, keepdim=True)
    lam = on_prefix / (on_prefix + own.exp().sum(-1, keepdim=True))
    mixed = (1 - lam) * own.softmax(-1) @ v + lam * front.softmax(-1) @ prefix.value
    expected = attention.c_proj(mixed.transpose(0, 1).reshape(1, 6, 32))
    torch.testing.assert_close(got, expected)
    assert 0.1 < lam.mean() < 0.9


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_separate_prefix_adds_its_own_attention(attention):
    """Attn + g Attn_prefix, by hand for every token; two query heads share a key-value head."""
    model = tiny("llama-gqa", attention)
    tuning = attach(model, Prefix(3, gated=True))
    jitter(tuning, scale=1.0)
    prefix, layer = tuning.parts[0].module, model.model.layers[0].self_attn
    prefix.set_gate(0.7)
    x, places = torch.randn(2, 6, 32), torch.arange(6)[None]
    angles = model.model.rotary_emb(x, places)
    mask = torch.ones(1, 1, 6, 6).tril().bool()
    mask = mask if attention == "sdpa" else torch.zeros(1, 1, 6, 6).masked_fill(~mask, -torch.inf)
    got, _ = layer(x, position_embeddings=angles, attention_mask=mask)
    tuning.detach()
    base, _ = layer(x, position_embeddings=angles, attention_mask=mask)

    q = layer.q_proj(x).view(2, 6, 4, 8).transpose(1, 2)
    q, _ = apply_rotary_pos_emb(q, q, *angles)
    key, value = (t.repeat_interleave(2, dim=0) for t in (prefix.key, prefix.value))
    own = (q @ key.mT / math.sqrt(8)).softmax(-1) @ value
    expected = base + 0.7 * layer.o_proj(own.transpose(1, 2).reshape(2, 6, 32))
    torch.testing.assert_close(got, expected)
    assert largest(got, base) > 0.1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("gating", [None, "unipelt"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"init": "vocab"}, {"init": "task"}, {"reparam_hidden": 6}, {"gated": True}],
    ids=lambda settings: "-".join(map(str, settings.values())) or "random",
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_separate_prefix_starts_as_the_base_model_and_learns(kind, settings, gating, attention):
    inputs, model = batch("right"), tiny(kind, attention)
    base = real(model(**inputs).logits, inputs)
    tuning = attach(
        model, Prefix(4, **settings), gating=gating, tokenizer=Tokenizer(), task_text="is it good"
    )
    logits = real(model(**inputs).logits, inputs)
    assert largest(logits, base) < 1e-6
    logits.square().mean().backward()
    if "reparam_hidden" not in settings:
        assert all(part.module.value.grad.abs().max() > 0 for part in tuning.parts)
    steps = torch.optim.SGD(tuning.parameters(), lr=0.1)
    for _ in range(2):  # after the first step the keys learn, too
        steps.step()
        steps.zero_grad()
        real(model(**inputs).logits, inputs).square().mean().backward()
    assert all(p.grad.abs().max() > 0 for n, p in tuning.named_parameters())


def test_a_joint_prefix_does_not_start_as_the_base_model():
    inputs, model = batch("right"), tiny("llama-gqa")
    base = real(model(**inputs).logits, inputs)
    attach(model, Prefix(4, softmax="joint"))
    assert largest(real(model(**inputs).logits, inputs), base) > 1e-2


@pytest.mark.parametrize("softmax", ["separate", "joint"])
def test_only_a_joint_prefix_needs_a_mask_where_the_model_needs_none(softmax):
    model, masks = tiny("llama-gqa"), []
    attach(model, Prefix(4, softmax=softmax))
    model.model.layers[0].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    model(**batch("none"))
    assert (masks[0] is None) == (softmax == "separate")


@pytest.mark.parametrize("softmax", ["separate", "joint"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_gate_is_the_base_model_and_an_open_one_the_plain_prefix(kind, padding, attention, softmax):
    inputs = batch(padding, rows=1 if padding == "none" else 3)
    model = tiny(kind, attention, wide=False)
    base = real(model(**inputs).logits, inputs)
    torch.manual_seed(0)
    plain = attach(model, Prefix(4, softmax=softmax))
    jitter(plain)
    open_logits, state = real(model(**inputs).logits, inputs), plain.state_dict()
    plain.detach()
    gated = attach(model, Prefix(4, softmax=softmax, gated=True))
    gated.load_state_dict(state | {n: t for n, t in gated.state_dict().items() if "gate" in n})
    for value, expected in ((0, base), (1, open_logits)):
        for part in gated.parts:
            part.module.set_gate(value)
            assert part.module.gate == value
        assert (real(model(**inputs).logits, inputs) - expected).abs().max() < 3e-7
    assert (open_logits - base).abs().max() > 1e-5


@pytest.mark.parametrize("softmax", ["separate", "joint"])
def test_a_gate_is_exact_in_double_precision_and_has_finite_gradients(softmax):
    inputs, model = batch(), tiny("llama-gqa").double()
    base = real(model(**inputs).logits, inputs)
    tuning = attach(model, Prefix(4, softmax=softmax, gated=True))
    jitter(tuning)
    for part in tuning.parts:
        part.module.set_gate(0)
    logits = model(**inputs).logits
    assert largest(real(logits, inputs), base) < 1e-14
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in tuning.parameters())


@pytest.mark.parametrize("softmax", ["separate", "joint"])
def test_a_gate_starts_half_open_and_learns(softmax):
    model = tiny("llama-gqa")
    tuning = attach(model, Prefix(4, softmax=softmax, gated=True))
    assert {name: float(value) for name, value in tuning.gates().items()} == {
        f"model.layers.{i}.self_attn.prefix": 0.5 for i in range(LAYERS)
    }
    inputs = batch()
    jitter(tuning)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(part.module.gate_logit.grad != 0 for part in tuning.parts)
    with pytest.raises(InputError, match=r"gate: got 1\.5"):
        tuning.parts[0].module.set_gate(1.5)
    with pytest.raises(InputError, match="gate: got 'half'"):
        tuning.parts[0].module.set_gate("half")
    with pytest.raises(InputError, match="made with gated=True"):
        attach(tiny("llama"), Prefix(4)).parts[0].module.set_gate(1)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "gpt2-classifier"])
def test_counts_are_the_closed_formula(kind):
    """2 n n_kv d_k numbers a layer, and one more for a gate."""
    config = tiny(kind).config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert attach(tiny(kind), Prefix(7)).count().trained == LAYERS * 2 * 7 * heads * width
    assert attach(tiny(kind), Prefix(7, gated=True)).count().trained == LAYERS * (2 * 7 * heads * width + 1)


@pytest.mark.parametrize(
    ("softmax", "stds"), [("separate", (RANDOM_STD, 0)), ("joint", (RANDOM_STD, RANDOM_STD))]
)
def test_random_start(softmax, stds):
    torch.manual_seed(0)
    parts = attach(tiny("llama"), Prefix(60, softmax=softmax)).parts
    for name, std in zip(("key", "value"), stds, strict=True):
        rows = torch.cat([getattr(p.module, name).flatten() for p in parts])
        assert rows.std().item() == pytest.approx(std, rel=0.05)


class Tokenizer:
    """Gives the ids of a text of three words."""

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return type("Encoded", (), {"input_ids": [5 + len(word) for word in text.split()]})()


@pytest.mark.parametrize("kind", [*DECODERS, "bert"])
def test_a_task_start_is_the_text_before_the_input(kind):
    """On rotary models the prefix stands where the text would: the logits are those of one long text."""
    model = tiny(kind)
    tuning = attach(
        model, Prefix(3, init="task", softmax="joint"), tokenizer=Tokenizer(), task_text="is it good"
    )
    text = torch.tensor([[7, 7, 9]])
    inputs = batch("full")
    logits = model(**inputs).logits
    tuning.detach()
    if kind in ("gpt2", "bert"):
        key, value = record_keys_and_values(model, text[0], torch.arange(3))[1]
        assert torch.equal(key, tuning.parts[1].module.key) and torch.equal(
            value, tuning.parts[1].module.value
        )
    else:
        whole = torch.cat([text.expand(3, -1), inputs["input_ids"]], dim=1)
        assert largest(logits, model(input_ids=whole).logits[:, 3:]) < 1e-6


def test_starts_leave_the_model_as_it_was():
    model = tiny("bert", dropout=0.3).train()
    model.bert.encoder.layer[0].eval()
    modes = [m.training for m in model.modules()]
    torch.manual_seed(0)
    tuning = attach(model, Prefix(5, init="vocab"))
    tuning.detach()
    assert [m.training for m in model.modules()] == modes
    assert model.config._attn_implementation == "sdpa"
    torch.manual_seed(0)
    ids = torch.randint(61, (5,))
    model.eval()
    key, _ = record_keys_and_values(model, ids, torch.arange(5))[0]
    assert torch.equal(key, tuning.parts[0].module.key)


def test_a_short_task_text_is_repeated():
    tuning = attach(tiny("gpt2"), Prefix(5, init="task"), tokenizer=Tokenizer(), task_text="a bc")
    ids = torch.tensor([6, 7, 6, 7, 6])
    tuning.detach()
    key, _ = record_keys_and_values(tiny("gpt2"), ids, torch.arange(5))[0]
    assert torch.equal(key, tuning.parts[0].module.key)


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "bert"])
def test_reparametrisation_trains_and_folds_away(kind, tmp_path):
    inputs, model = batch(), tiny(kind)
    tuning = attach(model, Prefix(4, reparam_hidden=6))
    heads, _, width = tuning.parts[0].module.keys_and_values()[0].shape
    trunk, out = 4 * 6 + 6 * 6 + 6, 6 * 2 * heads * width + 2 * heads * width
    assert tuning.count().trained == trunk + LAYERS * out
    jitter(tuning)
    logits = model(**inputs, labels=inputs["input_ids"])
    logits.loss.backward()
    assert all(p.grad.abs().max() > 0 for p in tuning.parameters())
    state = tuning.state_dict()
    assert {n.rsplit(".", 1)[-1] for n in state} == {"key", "value"}
    folded = attach(tuning.detach(), Prefix(4))
    folded.load_state_dict(state)
    assert torch.equal(model(**inputs).logits, logits.logits)


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("softmax", ["separate", "joint"])
def test_dtypes(softmax, padding):
    method = Prefix(4, softmax=softmax, gated=True)
    model = tiny("llama-gqa").bfloat16()
    tuning = attach(model, method, gating="unipelt")
    assert {p.dtype for p in tuning.parameters()} == {torch.float32}
    assert model(**batch(padding)).logits.dtype == torch.bfloat16
    model = tiny("llama-gqa")
    jitter(attach(model, method, gating="unipelt"))
    expected = model(**batch(padding)).logits
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            largest(real(model(**batch(padding)).logits, batch(padding)), real(expected, batch(padding)))
            < 0.1
        )


@pytest.mark.parametrize("softmax", ["separate", "joint"])
def test_attention_is_in_single_precision_under_autocast(softmax, monkeypatch):
    plain, seen = sdpa_attention.sdpa_attention_forward, []

    def watched(module, query, key, value, *rest, **options):
        seen.append({query.dtype, key.dtype, value.dtype})
        return plain(module, query, key, value, *rest, **options)

    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", watched)
    model = tiny("gpt2")
    attach(model, Prefix(4, softmax=softmax))
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch())
    assert len(seen) >= LAYERS and all(dtypes == {torch.float32} for dtypes in seen)


@pytest.mark.parametrize("softmax", ["separate", "joint"])
def test_a_mask_of_rows_and_keys(softmax):
    inputs, model = batch("full", rows=1), tiny("llama-gqa")
    jitter(attach(model, Prefix(4, softmax=softmax)))
    rows = torch.ones(1, 1, 9, 9).tril().bool()
    for mask in (rows, rows.expand(1, 4, 9, 9), torch.zeros(1, 1, 9, 9).masked_fill(~rows, -1e9)):
        got = model(input_ids=inputs["input_ids"], attention_mask=mask).logits
        assert largest(got, model(**inputs).logits) < 1e-6


@pytest.mark.parametrize("softmax", ["separate", "joint"])
def test_sliding_windows_see_the_prefix(softmax):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(**{**tiny("mistral").config.to_dict(), "sliding_window": 3})
    model = MistralForCausalLM(config).eval()
    tuning = attach(model, Prefix(4, softmax=softmax))
    ids = batch("none", rows=1)["input_ids"]
    base = model(ids).logits[0, -1]
    tuning.parts[0].module.value.data += 1
    assert largest(model(ids).logits[0, -1], base) > 1e-4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"length": 0}, "prefix_length: got 0"),
        ({"init": "words"}, "init: got 'words'; accepted: 'random' or 'vocab' or 'task'."),
        ({"softmax": "own"}, "softmax: got 'own'; accepted: 'separate' or 'joint'."),
        ({"gated": "yes"}, "gated: got 'yes'"),
        ({"positions": "none"}, "positions: got 'none'; accepted: 'keep' or 'shift'."),
        ({"reparam_hidden": 0}, "reparam_hidden: got 0"),
        ({"reparam_hidden": 8, "init": "vocab"}, "init: got 'vocab'; accepted: 'random' together"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(InputError) as error:
        Prefix(**settings)
    assert str(error.value).startswith(sentence)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=f"prefix_length: got {CONTEXT}"):
        attach(tiny("gpt2"), Prefix(CONTEXT))
    with pytest.raises(InputError, match="task_text"):
        attach(tiny("gpt2"), Prefix(4, init="task"))
    with pytest.raises(InputError, match="tokenizer"):
        attach(tiny("gpt2"), Prefix(4, init="task"), task_text="good or bad")
    model = tiny("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match="attn_implementation: got 'flash_attention_2'"):
        attach(model, Prefix(4))
