"""The prefix here, with positions="shift", and in PEFT: equal to the last bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PrefixTuningConfig, get_peft_model
from peft_side import labels, peft_prefix, prefix_gradient, same_here
from tiny_models import DECODERS, KINDS, batch, largest, real, tiny

from hybridft_utils import Prefix, attach


@pytest.mark.parametrize("padding", ["none", "full", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_losses_and_gradients_are_identical(kind, padding, tmp_path):
    theirs = peft_prefix(kind)
    ours = same_here(theirs, kind, tmp_path)
    inputs = batch(padding, rows=1 if padding == "none" and "classifier" in kind else 3)
    target = labels(inputs, kind)
    expected, got = theirs(**inputs, labels=target), ours.model(**inputs, labels=target)
    assert torch.equal(real(got.logits, inputs), real(expected.logits, inputs))
    assert torch.equal(got.loss, expected.loss)
    expected.loss.backward()
    got.loss.backward()
    gradient = theirs.prompt_encoder["default"].embedding.weight.grad
    assert largest(prefix_gradient(ours), gradient) < 1e-6
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "bert"])
def test_eager_attention(kind, tmp_path):
    theirs = peft_prefix(kind, attention="eager")
    ours = same_here(theirs, kind, tmp_path, "eager")
    inputs = batch("right")
    assert torch.equal(real(ours.model(**inputs).logits, inputs), real(theirs(**inputs).logits, inputs))


@pytest.mark.parametrize("kind", DECODERS)
def test_left_padding_equals_peft_without_padding(kind, tmp_path):
    theirs = peft_prefix(kind)
    ours = same_here(theirs, kind, tmp_path)
    inputs = batch("left")
    got = ours.model(**inputs).logits
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        alone = theirs(input_ids=inputs["input_ids"][row, mask][None]).logits[0]
        assert largest(got[row, mask], alone) < 1e-5


@pytest.mark.parametrize("kind", ["llama-gqa", "qwen3"])
def test_kept_positions_are_peft_with_rotated_keys(kind, tmp_path):
    ours = attach(tiny(kind), Prefix(5, softmax="joint"))
    inputs = batch("right")
    expected = ours.model(**inputs).logits
    ours.export_peft(tmp_path)
    theirs = peft_prefix(kind)
    theirs.load_adapter(tmp_path, "ours")
    theirs.set_adapter("ours")
    assert largest(real(theirs(**inputs).logits, inputs), real(expected, inputs)) < 1e-6


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2"])
def test_generate_is_identical(kind, tmp_path):
    theirs = peft_prefix(kind)
    ours = same_here(theirs, kind, tmp_path)
    inputs = batch("full")
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    assert torch.equal(ours.model.generate(**inputs, **options), theirs.generate(**inputs, **options))


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "bert"])
def test_twenty_adamw_steps(kind, tmp_path):
    theirs = peft_prefix(kind)
    ours = same_here(theirs, kind, tmp_path)
    embedding = theirs.prompt_encoder["default"].embedding.weight
    losses = []
    for model, parameters in ((theirs, [embedding]), (ours.model, ours.parameters())):
        model.train()
        optimizer, path = torch.optim.AdamW(parameters, lr=1e-2), []
        for step in range(20):
            inputs = batch("right", seed=step)
            loss = model(**inputs, labels=labels(inputs, kind)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            path.append(loss.detach())
        losses.append(torch.stack(path))
    assert largest(losses[1], losses[0]) < 1e-5
    layers = [torch.stack([p.module.key, p.module.value]) for p in ours.parts]
    assert (torch.stack(layers).permute(3, 0, 1, 2, 4).flatten(1) - embedding).abs().max() < 1e-5


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["llama-gqa", "gpt2", "qwen3"]),
    length=st.integers(1, 20),
    rows=st.integers(1, 3),
    tokens=st.integers(5, 12),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_any_length_shape_and_dtype(kind, length, rows, tokens, dtype):
    torch.manual_seed(length)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    theirs = get_peft_model(tiny(kind).to(dtype), config)
    ours = attach(tiny(kind).to(dtype), Prefix(length, softmax="joint", positions="shift"))
    flat = theirs.prompt_encoder["default"].embedding.weight.detach()
    blocks = flat.view(length, len(ours.parts), 2, *ours.parts[0].module.key.shape[::2]).permute(
        1, 2, 3, 0, 4
    )
    for part, (key, value) in zip(ours.parts, blocks, strict=True):
        part.module.key.data, part.module.value.data = key, value
    inputs = batch("right", rows, tokens)
    expected, got = theirs(**inputs).logits, ours.model(**inputs).logits
    assert torch.equal(real(got, inputs), real(expected, inputs))
