"""Everything together through one attach, and switching, detaching and refusing."""

import copy

import pytest
import torch
from tiny_models import DECODERS, FAMILIES, KINDS, batch, jitter, largest, tiny
from torch import nn
from transformers import StaticCache, Trainer, TrainingArguments

from hybridft_utils import (
    Adapter,
    BitFit,
    FullFineTuning,
    HeadOnly,
    InputError,
    LoRA,
    Prefix,
    SoftPrompt,
    attach,
)

EVERYTHING = (LoRA(rank=2), Prefix(4, gated=True), SoftPrompt(3), Adapter(bottleneck=4))
ONE_EACH = (*EVERYTHING, Adapter(4, placement="parallel"), FullFineTuning(), BitFit(), HeadOnly())


def hybrid(kind, attention="sdpa", gating="unipelt", methods=EVERYTHING, **options):
    torch.manual_seed(0)
    tuning = attach(tiny(kind, attention, **options), *methods, gating=gating)
    jitter(tuning)
    return tuning


def rows_alone(model, inputs):
    """The same rows one by one, without padding."""
    masks = inputs["attention_mask"].bool()
    return [
        (m, model(input_ids=i[m][None]).logits[0]) for i, m in zip(inputs["input_ids"], masks, strict=True)
    ]


# An encoder's positions start at the first token, padding or not.
PADDED = [(kind, "right") for kind in KINDS] + [(kind, "left") for kind in KINDS if "bert" not in kind]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("kind", "padding"), PADDED)
def test_padding_changes_nothing(kind, padding, attention):
    inputs, model = batch(padding), hybrid(kind, attention).model
    logits = model(**inputs).logits
    for row, (mask, alone) in enumerate(rows_alone(model, inputs)):
        got = logits[row] if "classifier" in kind else logits[row, mask]
        assert largest(got, alone) < 1e-5
    assert largest(tiny(kind, attention)(**inputs).logits, logits) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_mask_is_a_mask_of_ones_and_eager_is_sdpa(kind):
    inputs, rows = batch("full"), 1 if "classifier" in kind else 3
    inputs = {name: tensor[:rows] for name, tensor in inputs.items()}
    model = hybrid(kind).model
    logits = model(**inputs).logits
    assert largest(model(inputs["input_ids"]).logits, logits) < 1e-6
    assert largest(hybrid(kind, "eager").model(**inputs).logits, logits) < 1e-5


@pytest.mark.parametrize("gating", [None, "unipelt"])
@pytest.mark.parametrize("methods", [EVERYTHING, *((m,) for m in EVERYTHING), (Adapter(4, "parallel"),)])
@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2"])
def test_later_tokens_change_no_earlier_logit(kind, methods, gating):
    ids = batch("none")["input_ids"]
    model = hybrid(kind, gating=gating, methods=methods).model
    other = ids.clone()
    other[:, 6:] = ids[:, 6:] % 50 + 4
    assert not torch.equal(other, ids)
    before, after = model(ids).logits, model(other).logits
    assert largest(after[:, :6], before[:, :6]) < 1e-6
    assert largest(after[:, 6:], before[:, 6:]) > 1e-2


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "bert"])
def test_input_gates_scale_their_parts(kind):
    """A bias of the gate far below 0 switches each part off, but for the soft prompt, which has none."""
    inputs = batch("right")
    methods = [m for m in EVERYTHING if m.kind != "prompt"]
    tuning = hybrid(kind, methods=methods)
    gates = tuning.gates()
    parts = {p.name for p in tuning.parts}
    model, mask = tuning.model, inputs["attention_mask"].bool()
    model(**inputs)
    gates = {n: g for n, g in tuning.gates().items() if g.ndim}
    assert {n.removesuffix(".input_gate").removesuffix(".gate") for n in gates} == parts
    assert all(g.shape == (3, 9, 1) and 0 < g.min() < g.max() < 1 for g in gates.values())
    with torch.no_grad():
        for name, parameter in tuning.named_parameters():
            if name.endswith("gate.linear.weight"):
                parameter.zero_()
            if name.endswith("gate.linear.bias"):
                parameter.fill_(-200)
    assert largest(model(**inputs).logits[mask], tiny(kind)(**inputs).logits[mask]) < 1e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_gradient_checkpointing(kind, before, reentrant):
    def gradients(checkpointing):
        model = tiny(kind).train()
        options = {"use_reentrant": reentrant}
        if checkpointing and before:
            model.activation_checkpointing_enable(options)
        torch.manual_seed(0)
        tuning = attach(model, *EVERYTHING, gating="unipelt")
        if checkpointing and not before:
            model.activation_checkpointing_enable(options)
        jitter(tuning)
        inputs = batch("right")
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        return {n: p.grad for n, p in tuning.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(checkpointed[name], gradient)


@pytest.mark.parametrize("methods", [EVERYTHING, (Prefix(4, positions="shift"),)], ids=len)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("padding", ["left", "full", "none"])
@pytest.mark.parametrize("kind", DECODERS)
def test_greedy_generation(kind, padding, cache, methods):
    """Token by token with a cache as all at once without one: the same logits, and their largest."""
    inputs, model = batch(padding), hybrid(kind, methods=methods).model
    out = model.generate(
        **inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, cache_implementation=cache,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    ids, mask = inputs["input_ids"], inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    whole = torch.cat([mask, mask.new_ones(len(ids), 5)], dim=1)
    expected = model(input_ids=out.sequences[:, :-1], attention_mask=whole, use_cache=False).logits[:, 8:]
    assert largest(torch.stack(out.logits, dim=1), expected) < 1e-5
    assert torch.equal(out.sequences[:, 9:], expected.argmax(-1))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("options", [{"do_sample": True, "top_p": 0.9}, {"num_beams": 3}])
@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2"])
def test_sampling_and_beams(kind, options, attention):
    inputs, model = batch("left"), hybrid(kind, attention).model
    drawn = []
    for caching in (
        {"use_cache": False},
        {"cache_implementation": "dynamic"},
        {"cache_implementation": "static"},
    ):
        torch.manual_seed(0)
        drawn.append(model.generate(**inputs, max_new_tokens=6, eos_token_id=None, **options, **caching))
    assert torch.equal(drawn[1], drawn[0]) and torch.equal(drawn[2], drawn[0])


def test_a_cache_of_the_users_own():
    inputs, model = batch("full"), hybrid("llama-gqa").model
    whole = model(**inputs).logits
    cache = StaticCache(config=model.config, max_cache_len=9)
    first = model(input_ids=inputs["input_ids"][:, :5], past_key_values=cache).logits
    second = model(input_ids=inputs["input_ids"][:, 5:], past_key_values=cache).logits
    assert largest(torch.cat([first, second], 1), whole) < 1e-5


@pytest.mark.parametrize("kind", ["llama-gqa", "bert-classifier"])
def test_transformers_trainer(kind, tmp_path):
    model = tiny(kind)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters()}
    inputs = batch("right", rows=8)
    target = torch.arange(8) % 2 if "classifier" in kind else inputs["input_ids"]
    rows = [
        {"input_ids": i, "attention_mask": m, "labels": t}
        for i, m, t in zip(*inputs.values(), target, strict=True)
    ]
    also = ("classifier",) if "classifier" in kind else ()
    tuning = attach(model, *EVERYTHING, gating="unipelt", also_train=also)
    start = {n: p.detach().clone() for n, p in tuning.named_parameters()}
    arguments = TrainingArguments(
        output_dir=tmp_path, max_steps=4, learning_rate=1e-2, per_device_train_batch_size=4, use_cpu=True,
        report_to=[], disable_tqdm=True, logging_strategy="no", save_strategy="steps", save_steps=2, gradient_checkpointing=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows).train()
    trained = {n: p.detach().clone() for n, p in tuning.named_parameters()}
    assert all(not torch.equal(p, start[n]) for n, p in trained.items())
    # Interrupted after two steps and resumed, the training ends at the same parameters.
    tuning.load_state_dict(start)
    Trainer(model, arguments, train_dataset=rows).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, parameter in tuning.named_parameters():
        assert torch.equal(parameter, trained[name]), name
    tuning.detach()
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_disabled_and_detached_are_the_base_model(kind):
    inputs, model = batch(), tiny(kind)
    base, modules = model(**inputs).logits, dict(model.named_modules())
    config, state = copy.deepcopy(vars(model.config)), dict(vars(model))
    tuning = attach(model, *EVERYTHING, gating="unipelt")
    jitter(tuning)
    tuned = model(**inputs).logits
    with tuning.disabled():
        assert torch.equal(model(**inputs).logits, base)
        with tuning.disabled():
            assert torch.equal(model(**inputs).logits, base)
        assert torch.equal(model(**inputs).logits, base)
    assert torch.equal(model(**inputs).logits, tuned)
    with pytest.raises(RuntimeError, match="inside"), tuning.disabled():
        raise RuntimeError("inside")
    assert torch.equal(model(**inputs).logits, tuned)
    tuning.detach()
    assert torch.equal(model(**inputs).logits, base)
    assert dict(model.named_modules()) == modules  # the very same objects
    assert vars(model.config) == config
    assert vars(model).keys() == state.keys()
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert all(p.requires_grad for p in model.parameters())


def test_nothing_is_saved_or_changed_while_switched_off(tmp_path):
    tuning = hybrid("llama")
    state = tuning.state_dict()
    with tuning.disabled():
        for action in (tuning.state_dict, tuning.merge, tuning.detach, lambda: tuning.load_state_dict(state)):
            with pytest.raises(InputError, match="got 'a disabled tuning'"):
                action()
        with pytest.raises(InputError, match="got 'a disabled tuning'"):
            tuning.save(tmp_path / "x")
    tuning.detach()
    for action in (tuning.state_dict, tuning.merge, tuning.detach, lambda: tuning.disabled().__enter__()):
        with pytest.raises(InputError, match="got 'a detached tuning'"):
            action()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "bert"])
def test_frozen_parameters_stay_and_trained_ones_all_move(kind):
    model = tiny(kind).train()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters()}
    tuning = hybrid(kind)
    model = tuning.model.train()
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=1e-2)
    start = {n: p.detach().clone() for n, p in tuning.named_parameters()}
    for step in range(3):
        inputs = batch(seed=step)
        optimizer.zero_grad()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
    assert all(not torch.equal(p, start[n]) for n, p in tuning.named_parameters())
    assert all(p.grad is None for p in tuning._base.values())
    tuning.detach()
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters())


def test_switching_off_between_forward_and_backward():
    """What autograd keeps of the forward pass is what was used there."""
    inputs, model = batch(), tiny("llama")
    tuning = attach(model, FullFineTuning(), LoRA(2))
    jitter(tuning)
    gradients = []
    for switch in (False, True):
        model.zero_grad()
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        if switch:
            with tuning.disabled():
                pass
        loss.backward()
        gradients.append([p.grad.clone() for p in tuning.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_counts_add_up():
    for kind in FAMILIES:
        total = sum(p.numel() for p in tiny(kind).parameters())
        single = {m.kind: attach(tiny(kind), m).count().trained for m in EVERYTHING}
        count = attach(tiny(kind), *EVERYTHING).count()
        assert count.by_method == single
        assert count.trained == sum(single.values())
        assert count.total == total + count.trained
        assert count.percent == 100 * count.trained / count.total


@pytest.mark.parametrize("first", ONE_EACH, ids=lambda m: f"{m.kind}-{getattr(m, 'placement', '')}")
def test_a_second_tuning_is_refused(first):
    model = tiny("bert-classifier")
    tuning = attach(model, first)
    with pytest.raises(InputError, match="a model with a tuning attached"):
        attach(model, LoRA())
    with tuning.disabled(), pytest.raises(InputError, match="a model with a tuning attached"):
        attach(model, Adapter())
    tuning.detach()
    attach(model, LoRA()).merge()
    attach(model, LoRA())


def failing():
    long = Prefix(64)
    return [
        ((LoRA(), long), {}, "prefix_length"),
        ((LoRA(), BitFit(), LoRA(rank=2)), {}, "lora twice"),
        ((Adapter(), LoRA(target_modules="typo")), {}, "target_modules"),
        ((Prefix(4, init="vocab"), SoftPrompt(64)), {}, "prompt_length"),
        ((LoRA(), FullFineTuning(freeze_layers=9)), {}, "freeze_layers"),
        ((LoRA(),), {"also_train": ("typo",)}, "also_train: got 'typo'.*bert, dropout, classifier"),
        ((LoRA(),), {"gating": "on"}, "gating: got 'on'; accepted: None or 'unipelt'"),
        ((LoRA,), {}, "methods"),
        ((), {}, "methods: got 'none'"),
    ]


@pytest.mark.parametrize(("methods", "options", "sentence"), failing())
def test_a_refusal_leaves_the_model_as_it_was(methods, options, sentence):
    model = tiny("bert-classifier")
    modules, attributes = dict(model.named_modules()), vars(model).keys() | set()
    base = model(**batch()).logits
    with pytest.raises(InputError, match=sentence):
        attach(model, *methods, **options)
    assert dict(model.named_modules()) == modules and vars(model).keys() == attributes
    assert model.config._attn_implementation == "sdpa"
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model(**batch()).logits, base)
    attach(model, LoRA())


def test_models_that_are_not_supported():
    from transformers import T5Config, T5ForConditionalGeneration

    with pytest.raises(InputError, match="a transformers model"):
        attach(nn.Linear(2, 2), LoRA())
    sizes = {"vocab_size": 9, "d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 2, "d_kv": 4}
    with pytest.raises(
        InputError, match=r"T5ForConditionalGeneration.*bert, gpt2, llama, mistral, qwen2, qwen3"
    ):
        attach(T5ForConditionalGeneration(T5Config(**sizes)), LoRA())


def test_partly_merged():
    """LoRA goes into the weights; the rest stays switchable on what is now its base."""
    inputs = batch()
    tuning = hybrid("bert", gating=None, methods=(*EVERYTHING, BitFit()))
    model = tuning.model
    before = model(**inputs).logits
    tuning.merge()
    assert largest(model(**inputs).logits, before) < 1e-5
    assert [m.kind for m in tuning.methods] == ["prefix", "prompt", "adapter", "bitfit"]
    with tuning.disabled():
        merged_base = model(**inputs).logits
    assert largest(merged_base, tiny("bert")(**inputs).logits) > 1e-3
    tuning.detach()
    assert torch.equal(model(**inputs).logits, merged_base)


def test_the_device_and_precision_may_change_after_attaching():
    inputs, tuning = batch(), hybrid("llama", methods=(*EVERYTHING, FullFineTuning()))
    before = tuning.model(**inputs).logits
    tuning.model.double()
    assert largest(tuning.model(**inputs).logits, before.double()) < 1e-5
    with tuning.disabled():
        assert largest(tuning.model(**inputs).logits, tiny("llama").double()(**inputs).logits) < 1e-6


def test_a_copy_works_by_itself():
    inputs, tuning = batch(), hybrid("llama")
    before = tuning.model(**inputs).logits
    other = copy.deepcopy(tuning.model)
    jitter(tuning, seed=5)
    assert torch.equal(other(**inputs).logits, before)
