"""LoRA here and in PEFT: logits, losses, gradients, training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft_side import labels, lora_gradients, peft_lora, same_here
from tiny_models import KINDS, batch, largest, tiny

from hybridft_utils import LoRA, attach
from hybridft_utils.methods.lora import LoRALinear

TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "bert": ["query", "value", "dense"],
}


def targets(kind):
    return TARGETS[next((f for f in ("gpt2", "bert") if kind.startswith(f)), "llama")]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_losses_and_gradients(kind, attention, tmp_path):
    theirs = peft_lora(kind, attention, r=3, lora_alpha=7, target_modules=targets(kind))
    ours = same_here(theirs, kind, tmp_path, attention)
    inputs = batch("right")
    target = labels(inputs, kind)
    expected, got = theirs(**inputs, labels=target), ours.model(**inputs, labels=target)
    assert largest(got.logits, expected.logits) < 1e-5
    assert largest(got.loss, expected.loss) < 1e-5
    expected.loss.backward()
    got.loss.backward()
    gradients = lora_gradients(theirs)
    parts = {n: p for n, p in ours.named_parameters() if "lora_" in n}
    assert parts.keys() == gradients.keys()
    for name, parameter in parts.items():
        assert largest(parameter.grad, gradients[name]) < 1e-5, name


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "bert"])
def test_twenty_adamw_steps(kind, tmp_path):
    theirs = peft_lora(kind, r=4, lora_alpha=8, target_modules=targets(kind))
    ours = same_here(theirs, kind, tmp_path)
    sides = [
        (theirs, [p for p in theirs.parameters() if p.requires_grad]),
        (ours.model, ours.parameters()),
    ]
    losses = []
    for model, parameters in sides:
        model.train()
        optimizer, path = torch.optim.AdamW(parameters, lr=1e-3), []
        for step in range(20):
            inputs = batch("right", seed=step)
            loss = model(**inputs, labels=labels(inputs, kind)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            path.append(loss.detach())
        losses.append(torch.stack(path))
    assert largest(losses[1], losses[0]) < 1e-5
    assert losses[0][-1] != losses[0][0]
    expected = [p for n, p in theirs.named_parameters() if "lora_" in n]
    for mine, other in zip(ours.parameters(), expected, strict=True):
        assert (mine - other).abs().max() < 1e-5


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    rank=st.integers(1, 12),
    alpha=st.floats(0.5, 64),
    chosen=st.sets(
        st.sampled_from(["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]), min_size=1
    ),
    rows=st.integers(1, 3),
    tokens=st.integers(5, 12),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_any_rank_alpha_target_shape_and_dtype(rank, alpha, chosen, rows, tokens, dtype):
    torch.manual_seed(rank)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(chosen), init_lora_weights=False)
    theirs = get_peft_model(tiny("llama-gqa").to(dtype), config)
    ours = attach(tiny("llama-gqa").to(dtype), LoRA(rank, alpha, target_modules=tuple(chosen)))
    saved = {n: p for n, p in theirs.named_parameters() if "lora_" in n}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(saved[f"base_model.model.{name}.default.weight"])
    inputs = batch("right", rows, tokens)
    expected, got = theirs(**inputs).logits, ours.model(**inputs).logits
    assert got.dtype == expected.dtype == dtype
    # In bf16 the two add up in another order, each sum rounded to 8 bits.
    assert largest(got.double(), expected.double()) < {torch.bfloat16: 3e-2}.get(dtype, 1e-5)
    assert {p.dtype for p in ours.parameters()} == {p.dtype for p in saved.values()}


@settings(max_examples=15, deadline=None, derandomize=True)
@given(d_in=st.integers(1, 20), d_out=st.integers(1, 20), rank=st.integers(1, 6), alpha=st.floats(0.1, 32))
def test_one_layer_is_the_formula(d_in, d_out, rank, alpha):
    torch.manual_seed(d_in)
    base = torch.nn.Linear(d_in, d_out).double()
    layer = LoRALinear(base, rank, alpha).double()
    torch.nn.init.normal_(layer.lora_B)
    x = torch.randn(2, 3, d_in, dtype=torch.double)
    update = (alpha / rank) * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(layer(x), x @ (base.weight + update).T + base.bias)
