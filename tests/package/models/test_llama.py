"""The Llama to read: equal to transformers, causal, and the same with a cache."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from hybridft_utils import InputError, load_base
from hybridft_utils.models.llama import (
    Llama,
    LlamaShape,
    attention,
    attention_weights,
    load_llama,
    merge_heads,
    rotary_angles,
    rotate,
    split_heads,
)

TINY = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
SHAPE = LlamaShape(50, 24, 40, 2, 4, 2, 6)


def saved(folder: Path, **changes: object) -> LlamaForCausalLM:
    """A random model of transformers, with weights large enough for logits of size one, in a folder."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**TINY, "initializer_range": 0.2, **changes})).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("path", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 2},
        {"num_key_value_heads": 1},
        {"head_dim": 10},
        {"rms_norm_eps": 1e-2},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
        {"num_attention_heads": 1, "num_key_value_heads": 1},
    ],
    ids=str,
)
@torch.no_grad()
def test_equals_transformers(changes: dict, path: str, tmp_path: Path) -> None:
    theirs = saved(tmp_path, **changes)
    theirs.set_attn_implementation(path)
    ours = load_llama(tmp_path)
    ids = torch.randint(50, (3, 17))
    expected = theirs(ids).logits
    assert (ours(ids) - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert ours.shape.count() == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
def test_loads_the_shipped_weights() -> None:
    ours, (theirs, tokenizer) = load_llama("builtin:movies"), load_base("builtin:movies")
    ids = tokenizer("I expected very little and got even less.", return_tensors="pt").input_ids
    expected = theirs(ids).logits
    assert (ours(ids) - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert ours.shape.count() == sum(p.numel() for p in ours.parameters())


@torch.no_grad()
def test_a_later_token_changes_no_earlier_logit() -> None:
    torch.manual_seed(0)
    llama, ids = Llama(SHAPE), torch.randint(50, (2, 9))
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 50
    assert torch.equal(llama(ids)[:, :5], llama(changed)[:, :5])
    assert not torch.equal(llama(ids)[:, 5:], llama(changed)[:, 5:])
    for layer in llama.layers:
        layer.self_attn.attend = lambda q, k, v: attention(q, k, v, causal=False)
    assert not torch.equal(llama(ids)[:, :5], llama(changed)[:, :5])


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_pieces_with_a_cache_give_the_logits_of_the_whole(lengths: list[int]) -> None:
    torch.manual_seed(0)
    llama, ids = Llama(SHAPE), torch.randint(50, (2, sum(lengths)))
    for matrix in (p for p in llama.parameters() if p.ndim == 2):
        torch.nn.init.normal_(matrix, std=0.2)
    caches: list[list[torch.Tensor]] = [[] for _ in llama.layers]
    with torch.no_grad():
        pieces = torch.cat([llama(piece, caches) for piece in ids.split(lengths, dim=1)], dim=1)
        torch.testing.assert_close(pieces, llama(ids), rtol=1e-4, atol=1e-5)
    assert all(part.shape == (2, 2, sum(lengths), 6) for cache in caches for part in cache)


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 300), second=st.integers(0, 300), shift=st.integers(0, 300))
def test_rotated_scores_depend_on_the_distance_alone(first: int, second: int, shift: int) -> None:
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))

    def score(t: int, s: int) -> float:
        angles = rotary_angles(torch.tensor([t, s]), 8)
        return (rotate(query, angles[0]) @ rotate(key, angles[1])).item()

    assert score(first, second) == pytest.approx(score(first + shift, second + shift), abs=2e-3)


def test_rotation_turns_by_position_times_frequency() -> None:
    angles = rotary_angles(torch.tensor([0, 3]), 4, theta=100.0)
    torch.testing.assert_close(angles, torch.tensor([[0.0, 0.0], [3.0, 0.3]]))
    turned = rotate(torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([math.pi / 2, math.pi / 2]))
    torch.testing.assert_close(turned, torch.tensor([0.0, -1.0, 1.0, 0.0]), atol=1e-6, rtol=0)


def test_weights_are_scaled_by_the_root_of_the_head_width() -> None:
    query, key = torch.ones(1, 16), torch.stack([torch.ones(16), torch.zeros(16)])
    expected = torch.tensor([[4.0, 0.0]]).softmax(-1)
    torch.testing.assert_close(attention_weights(query, key, causal=False), expected)


def test_heads_are_slices_of_the_columns() -> None:
    x = torch.randn(2, 5, 12)
    for head in range(3):
        assert torch.equal(split_heads(x, 3)[:, head], x[..., 4 * head : 4 * head + 4])
    assert torch.equal(merge_heads(split_heads(x, 3)), x)


def test_an_untrained_model_starts_at_ln_v() -> None:
    torch.manual_seed(0)
    ids = torch.randint(50, (8, 40))
    logits = Llama(replace(SHAPE, hidden_size=32, head_dim=8))(ids)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(50), abs=0.05)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type 'linear'",
        ),
    ],
)
def test_refuses_parts_it_does_not_have(changes: dict, named: str, tmp_path: Path) -> None:
    saved(tmp_path, **changes)
    with pytest.raises(InputError, match=named):
        load_llama(tmp_path)


def test_refuses_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load_llama(tmp_path)
    saved(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors or its index"):
        load_llama(tmp_path)


def test_a_config_that_does_not_say_so_is_not_tied(tmp_path: Path) -> None:
    saved(tmp_path, tie_word_embeddings=False)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["tie_word_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="tie_word_embeddings False"):
        load_llama(tmp_path)


def edit(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def test_loads_a_copy_of_the_tied_matrix_and_saved_frequencies(tmp_path: Path) -> None:
    theirs, ids = saved(tmp_path), torch.randint(50, (2, 9))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"head_dim": None, "num_key_value_heads": None})
    )
    embedding = "model.embed_tokens.weight"
    edit(tmp_path, lambda t: t.update({"lm_head.weight": t[embedding].clone()}))
    edit(tmp_path, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}))
    assert (load_llama(tmp_path)(ids) - theirs(ids).logits).abs().max() <= 1e-5
    edit(tmp_path, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(InputError, match=r"lm_head\.weight that is not the embedding"):
        load_llama(tmp_path)


EDITS = {
    "remove": lambda t, n: t.pop(n),
    "rename": lambda t, n: t.update({f"{n}_2": t.pop(n)}),
    "reshape": lambda t, n: t.update({n: torch.cat([t[n], t[n][:1]])}),
    "poison": lambda t, n: t[n].view(-1)[0].fill_(torch.nan),
    "quantise": lambda t, n: t.update({n: t[n].to(torch.int8)}),
    "shrink": lambda t, n: t.update({n: t[n].to(torch.float8_e5m2)}),
    "add": lambda t, n: t.update({f"{n}.bias": torch.ones(2)}),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_tensor_is_refused(data, tmp_path: Path) -> None:
    saved(tmp_path)
    name = data.draw(st.sampled_from(sorted(load_file(tmp_path / "model.safetensors"))))
    change = EDITS[data.draw(st.sampled_from(sorted(EDITS)))]
    edit(tmp_path, lambda tensors: change(tensors, name))
    with pytest.raises(InputError, match=f"{name.removeprefix('model.')}|weights for a model of"):
        load_llama(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_size_is_refused(data, tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    name = data.draw(st.sampled_from([*list(TINY)[:6], "head_dim"]))
    values = st.one_of(
        st.integers(-2, 120), st.sampled_from([10**9, 10**30, 1.5, "many", [], True, math.nan])
    )
    value = data.draw(values.filter(lambda v: v != config[name] or v is True))
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(InputError) as caught:
        load_llama(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("broken", ["", "[]", "{", '{"rope_parameters": 3}', "{}", '{"model_type": "llama"}'])
def test_a_broken_config_is_refused(broken: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "config.json").write_text(broken)
    with pytest.raises(InputError):
        load_llama(tmp_path)
