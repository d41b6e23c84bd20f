"""Where PEFT fails or is silently wrong: its behaviour, measured, and ours."""

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from peft_side import labels, peft_prefix, peft_prompt, same_here
from tiny_models import batch, jitter, largest, position_ids, real, tiny

from hybridft_utils import Adapter, InputError, LoRA, Prefix, SoftPrompt, attach, load_tuning

N = 5


def alone(model, inputs, row):
    """One row's logits without its padding."""
    kept = inputs["attention_mask"][row].bool()
    return model(input_ids=inputs["input_ids"][row, kept][None]).logits[0]


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2"])
def test_left_padding_without_position_ids(kind):
    inputs = batch("left")
    kept = inputs["attention_mask"][1].bool()
    theirs = peft_prefix(kind, N)
    assert largest(theirs(**inputs).logits[1, kept], alone(theirs, inputs, 1)) > 1e-2
    for method in (Prefix(N), Prefix(N, positions="shift"), SoftPrompt(N)):
        model = tiny(kind)
        jitter(attach(model, method))
        assert largest(model(**inputs).logits[1, kept], alone(model, inputs, 1)) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("before", [True, False])
def test_prefix_under_gradient_checkpointing(before, reentrant, tmp_path):
    def enable(model):
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": reentrant})

    def peft_gradient():
        base = tiny("llama-gqa")
        if before:
            enable(base)
        theirs = get_peft_model(base, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N))
        if not before:
            enable(base)
        theirs.train()
        theirs(**inputs, labels=labels(inputs, "llama-gqa")).loss.backward()

    inputs = batch("right")
    with pytest.raises((ValueError, RuntimeError)):
        peft_gradient()
    gradients = []
    for checkpointed in (False, True):
        model = tiny("llama-gqa").train()
        if checkpointed and before:
            enable(model)
        torch.manual_seed(0)
        tuning = attach(model, Prefix(N))
        jitter(tuning)
        if checkpointed and not before:
            enable(model)
        model(**inputs, labels=labels(inputs, "llama-gqa")).loss.backward()
        gradients.append([p.grad for p in tuning.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, checkpointed)


def test_prefix_takes_no_positions():
    """A text as long as the context still fits; PEFT's prefix takes n positions of it."""
    ids = torch.arange(64)[None] % 50 + 3
    with pytest.raises(IndexError):
        peft_prefix("gpt2", N)(input_ids=ids)
    model = tiny("gpt2")
    attach(model, Prefix(N))
    assert model(input_ids=ids).logits.isfinite().all()
    # Asked for PEFT's positions, we say what does not fit.
    shifted = tiny("gpt2")
    attach(shifted, Prefix(N, positions="shift"))
    with pytest.raises(InputError, match="64 tokens after 5 positions"):
        shifted(input_ids=ids)


def test_masked_language_models():
    """PEFT has no task type for them: without one prefixes fail, as features prompts break the loss."""
    inputs = batch("right")
    target = labels(inputs, "bert")
    with pytest.raises(KeyError):
        get_peft_model(tiny("bert"), PrefixTuningConfig(num_virtual_tokens=N))
    with pytest.raises(ValueError, match="batch_size"):
        peft_prompt("bert", N)(**inputs, labels=target)
    for method in (Prefix(N), SoftPrompt(N)):
        model = tiny("bert")
        tuning = attach(model, method)
        jitter(tuning)
        output = model(**inputs, labels=target)
        output.loss.backward()
        assert output.logits.shape[:2] == target.shape
        assert all(p.grad.abs().max() > 0 for p in tuning.parameters())


@pytest.mark.parametrize("kind", ["gpt2-classifier", "llama-classifier"])
def test_soft_prompt_on_a_decoder_classifier_pools_the_last_token(kind, tmp_path):
    inputs = batch("right")
    kept = inputs["attention_mask"][1].bool()
    row = inputs["input_ids"][1, kept][None]
    theirs = peft_prompt(kind, N)
    assert largest(theirs(**inputs).logits[1:2], theirs(input_ids=row).logits) > 1e-2
    model = tiny(kind)
    jitter(attach(model, SoftPrompt(N)))
    assert largest(model(**inputs).logits[1:2], model(input_ids=row).logits) < 1e-5
    with pytest.raises(InputError, match="pools the wrong token"):
        same_here(theirs, kind, tmp_path)


def test_soft_prompt_on_an_encoder_classifier_pools_the_first_token():
    """PEFT pools the first prompt vector; the model was pretrained to pool [CLS]."""
    model = tiny("bert-classifier")
    attach(model, SoftPrompt(N))
    inputs = batch("right")
    hidden = model.bert(**inputs)
    assert hidden.last_hidden_state.shape[1] == inputs["input_ids"].shape[1]
    pooled = model.bert.pooler(hidden.last_hidden_state)
    assert torch.equal(model(**inputs).logits, model.classifier(pooled))


def test_a_zero_prefix_is_no_prefix_only_with_a_softmax_of_its_own_or_a_gate():
    inputs = batch("right")
    base = real(tiny("llama-gqa")(**inputs).logits, inputs)
    theirs = peft_prefix("llama-gqa", N)
    torch.nn.init.zeros_(theirs.prompt_encoder["default"].embedding.weight)
    assert largest(real(theirs(**inputs).logits, inputs), base) > 1e-2
    model = tiny("llama-gqa")
    tuning = attach(model, Prefix(N, softmax="joint", gated=True))
    for part in tuning.parts:
        part.module.set_gate(0)
    assert largest(real(model(**inputs).logits, inputs), base) < 5e-7
    attach(tuning.detach(), Prefix(N))
    assert torch.equal(real(model(**inputs).logits, inputs), base)


@pytest.mark.filterwarnings("ignore")
def test_four_methods_trained_together_saved_and_restored(tmp_path):
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N)
    both = get_peft_model(get_peft_model(tiny("llama-gqa"), lora), prefix)
    assert not any(p.requires_grad for n, p in both.named_parameters() if "lora_" in n)
    with pytest.raises(ValueError, match=r"Cannot combine adapters|cannot be combined|different peft types"):
        get_peft_model(tiny("llama-gqa"), lora).add_adapter("prefix", prefix)
    with pytest.raises(ValueError):
        get_peft_model(tiny("llama-gqa"), prefix, mixed=True)

    methods = (LoRA(rank=2), Prefix(N, gated=True), SoftPrompt(3), Adapter(bottleneck=4))
    model = tiny("llama-gqa").train()
    tuning = attach(model, *methods)
    start = {n: p.detach().clone() for n, p in tuning.named_parameters()}
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=1e-2)
    for step in range(5):
        inputs = batch("left", seed=step)
        optimizer.zero_grad()
        model(**inputs, labels=labels(inputs, "llama-gqa")).loss.backward()
        optimizer.step()
    assert all(not torch.equal(p, start[n]) for n, p in tuning.named_parameters())
    model.eval()
    inputs = batch("left")
    expected = model(**inputs).logits
    tuning.save(tmp_path / "tuning")
    fresh = tiny("llama-gqa")
    load_tuning(fresh, tmp_path / "tuning")
    assert torch.equal(fresh(**inputs).logits, expected)


def test_positions_given_by_the_user_are_kept():
    inputs = batch("left")
    model = tiny("llama-gqa")
    attach(model, Prefix(N))
    positions = position_ids(inputs["attention_mask"])
    assert torch.equal(model(**inputs).logits, model(**inputs, position_ids=positions).logits)
    moved = model(**inputs, position_ids=positions * 2).logits
    assert largest(real(moved, inputs), real(model(**inputs).logits, inputs)) > 1e-3
