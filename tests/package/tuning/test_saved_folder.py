"""One folder for a tuning: exact restoring, the right base only, damage in one sentence, all or nothing."""

import json
import shutil

import pytest
import torch
from tiny_models import KINDS, batch, jitter, tiny

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
    load_tuning,
)

EVERYTHING = (LoRA(rank=2), Prefix(4, gated=True), SoftPrompt(3), Adapter(bottleneck=4, placement="parallel"))


def saved(kind, folder, methods=EVERYTHING, **options):
    """A moved tuning saved in ``folder``, its logits and its tensors."""
    tuning = attach(tiny(kind), *methods, **options)
    jitter(tuning)
    tuning.save(folder)
    return tuning.model(**batch()).logits, tuning.state_dict()


@pytest.mark.parametrize("gating", [None, "unipelt"])
@pytest.mark.parametrize("kind", KINDS)
def test_restored_exactly(kind, gating, tmp_path):
    also = ("classifier",) if kind == "bert-classifier" else ()
    logits, state = saved(kind, tmp_path / "t", gating=gating, also_train=also)
    model = tiny(kind)
    tuning = load_tuning(model, tmp_path / "t")
    assert torch.equal(model(**batch()).logits, logits)
    assert tuning.methods == EVERYTHING and tuning.gating == gating
    assert all(torch.equal(t, state[n]) for n, t in tuning.state_dict().items())
    assert not any(p.requires_grad for n, p in tuning._base.items() if not n.startswith("classifier"))


@pytest.mark.parametrize(
    "methods",
    [
        (FullFineTuning(layer_decay=0.9, freeze_layers=1),),
        (HeadOnly(),),
        (BitFit(), LoRA(rank=3, rank_pattern={"query": 5})),
        (Prefix(4, reparam_hidden=6),),
        (Prefix(4, init="vocab", positions="shift"), SoftPrompt(3, init="vocab")),
    ],
    ids=lambda m: "+".join(x.kind for x in m),
)
def test_every_method_and_setting(methods, tmp_path):
    logits, _ = saved("bert-classifier", tmp_path / "t", methods)
    model = tiny("bert-classifier")
    base = model(**batch()).logits
    tuning = load_tuning(model, tmp_path / "t")
    assert torch.equal(model(**batch()).logits, logits)
    tuning.save(tmp_path / "again")
    assert (tmp_path / "again/tuning.json").read_text() == (tmp_path / "t/tuning.json").read_text()
    tuning.detach()
    assert torch.equal(model(**batch()).logits, base)


def test_a_new_head_need_not_be_the_same_before(tmp_path):
    """What comes with the tuning may differ in the base: a classifier is drawn anew each time."""
    logits, _ = saved("bert-classifier", tmp_path / "t", (LoRA(2), HeadOnly()))
    model = tiny("bert-classifier")
    model.classifier.weight.data.zero_()
    load_tuning(model, tmp_path / "t")
    assert torch.equal(model(**batch()).logits, logits)


def test_merged_and_saved(tmp_path):
    """What remains after a merge belongs to the merged model."""
    tuning = attach(tiny("llama"), LoRA(2), Prefix(3))
    jitter(tuning)
    tuning.merge()
    tuning.save(tmp_path / "t")
    with pytest.raises(InputError, match=r"other weights in model\.layers\.0"):
        load_tuning(tiny("llama"), tmp_path / "t")
    before = tuning.model(**batch()).logits
    model = tuning.detach()
    load_tuning(model, tmp_path / "t")
    assert torch.equal(model(**batch()).logits, before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda: tiny("gpt2"), "model: got 'model_type=gpt2'; accepted: the saved tuning's base with model_type=llama"),
        (lambda: tiny("llama").double(), "model: got 'dtype=float64'"),
        (lambda: tiny("llama", wide=False), "model: got 'other weights in model.embed_tokens.weight'"),
    ],
)  # fmt: skip
def test_another_base_is_refused_by_name_and_left_alone(change, sentence, tmp_path):
    saved("llama", tmp_path / "t")
    model = change()
    modules = dict(model.named_modules())
    with pytest.raises(InputError) as error:
        load_tuning(model, tmp_path / "t")
    assert str(error.value).startswith(sentence) or "target_modules" in str(error.value)
    assert dict(model.named_modules()) == modules and all(p.requires_grad for p in model.parameters())


def test_one_changed_layer_is_noticed(tmp_path):
    saved("llama", tmp_path / "t")
    model = tiny("llama")
    model.model.layers[1].mlp.down_proj.weight.data.mul_(1.001)
    with pytest.raises(InputError, match=r"other weights in model\.layers\.1\.mlp\.down_proj\.weight"):
        load_tuning(model, tmp_path / "t")


def settings_with(**changes):
    def change(folder):
        path = folder / "tuning.json"
        settings = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in settings.items() if k not in changes or v is not None}))

    return change


DAMAGE = {
    "no json": (lambda f: (f / "tuning.json").unlink(), "a folder with tuning.json"),
    "no weights": (lambda f: (f / "tuning.safetensors").unlink(), "a folder with tuning.safetensors"),
    "half json": (lambda f: (f / "tuning.json").write_text('{"format_version": 1,'), "is JSON"),
    "binary json": (lambda f: (f / "tuning.json").write_bytes(b"\xff\xfe\x00"), "is JSON"),
    "a list": (lambda f: (f / "tuning.json").write_text("[1]"), "a JSON object"),
    "foreign json": (lambda f: (f / "tuning.json").write_text('{"peft_type": "LORA"}'), "format_version: got None"),
    "a later version": (settings_with(format_version=2), "format_version: got 2; accepted: 1"),
    "no methods": (settings_with(methods=None), "KeyError: 'methods'"),
    "no base": (settings_with(base=None), "KeyError: 'base'"),
    "half a base": (settings_with(base={}), "the saved tuning's base with model_type=None"),
    "unknown method": (settings_with(methods=[{"kind": "magic"}]), "KeyError: 'magic'"),
    "unknown setting": (settings_with(methods=[{"kind": "lora", "colour": 1}]), "colour"),
    "bad setting": (settings_with(methods=[{"kind": "lora", "rank": 0}]), "rank: got 0"),
    "other rank": (settings_with(methods=[{"kind": "lora", "rank": 3}]), "state: got"),
    "cut weights": (lambda f: (f / "tuning.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{"), "undamaged"),
    "pickle": (lambda f: torch.save({"a": torch.ones(1)}, f / "tuning.safetensors"), "undamaged"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_one_sentence_and_the_model_left_alone(damage, tmp_path):
    folder = tmp_path / "t"
    saved("llama", folder)
    change, sentence = DAMAGE[damage]
    change(folder)
    model = tiny("llama")
    modules = dict(model.named_modules())
    with pytest.raises(InputError) as error:
        load_tuning(model, folder)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert dict(model.named_modules()) == modules and all(p.requires_grad for p in model.parameters())


def test_a_failed_save_leaves_the_old_folder(tmp_path, monkeypatch):
    folder = tmp_path / "t"
    logits, _ = saved("llama", folder)
    tuning = attach(tiny("llama"), LoRA(4))

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("hybridft_utils.tuning.saved_folder.write_tensors", fail)
    with pytest.raises(OSError, match="disk full"):
        tuning.save(folder)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    model = tiny("llama")
    load_tuning(model, folder)
    assert torch.equal(model(**batch()).logits, logits)
    tuning.save(folder)  # and a good one takes its place
    assert load_tuning(tiny("llama"), folder).methods == (LoRA(4),)
    shutil.rmtree(folder)


def test_states_that_do_not_fit_change_nothing():
    tuning = attach(tiny("llama"), LoRA(2))
    before = tuning.state_dict()
    name = next(iter(before))
    jitter(tuning)
    moved = tuning.state_dict()
    for state, sentence in (
        ({n: t for n, t in before.items() if n != name}, f"{name}.*missing"),
        (before | {"x": torch.ones(1)}, "'x'.*not part"),
        (before | {name: torch.ones(1)}, r"of shape \(1,\)"),
    ):
        with pytest.raises(InputError, match=sentence):
            tuning.load_state_dict(state)
        assert all(torch.equal(t, moved[n]) for n, t in tuning.state_dict().items())
