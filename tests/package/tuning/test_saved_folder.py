"""One folder for a tuning: exact restoring, the right base only, damage in one sentence, all or nothing."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from old_folders import as_format_1
from safetensors.torch import load_file, save_file
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


#: What a folder of format 1 can hold.
OLD = (EVERYTHING[0], replace(EVERYTHING[1], softmax="joint"), *EVERYTHING[2:])


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


def weights(folder):
    (path,) = folder.glob("tuning*.safetensors")
    return path


DAMAGE = {
    "no json": (lambda f: (f / "tuning.json").unlink(), "a folder with tuning.json"),
    "no weights": (lambda f: weights(f).unlink(), "a folder with tuning"),
    "half json": (lambda f: (f / "tuning.json").write_text('{"format_version": 1,'), "undamaged JSON"),
    "binary json": (lambda f: (f / "tuning.json").write_bytes(b"\xff\xfe\x00"), "a UTF-8 file"),
    "deep json": (lambda f: (f / "tuning.json").write_text("[" * 10**5), "undamaged JSON"),
    "a list": (lambda f: (f / "tuning.json").write_text("[1]"), "a JSON object"),
    "foreign json": (lambda f: (f / "tuning.json").write_text('{"peft_type": "LORA"}'), "format_version: got None"),
    "a later version": (settings_with(format_version=3), "format_version: got 3; accepted: 1 or 2"),
    "no version": (settings_with(format_version=True), "format_version: got True"),
    "cut weights": (lambda f: weights(f).write_bytes(b"\x10\0\0\0\0\0\0\0{"), "undamaged"),
    "empty weights": (lambda f: weights(f).write_bytes(b""), "undamaged"),
    "pickle": (lambda f: torch.save({"a": torch.ones(1)}, weights(f)), "undamaged"),
}  # fmt: skip
#: What format 1, which has no checksums, notices by other ways.
OLD_DAMAGE = {
    "no methods": (settings_with(methods=None), "KeyError: 'methods'"),
    "no base": (settings_with(base=None), "KeyError: 'base'"),
    "half a base": (settings_with(base={"checksums": {}}), "the saved tuning's base with model_type=None"),
    "a base of another type": (settings_with(base={"checksums": 3}), "TypeError"),
    "unknown method": (settings_with(methods=[{"kind": "magic"}]), "KeyError: 'magic'"),
    "unknown setting": (settings_with(methods=[{"kind": "lora", "colour": 1}]), "colour"),
    "bad setting": (settings_with(methods=[{"kind": "lora", "rank": 0}]), "rank: got 0"),
    "huge rank": (settings_with(methods=[{"kind": "lora", "rank": 10**30}]), "times the width"),
    "huge bottleneck": (settings_with(methods=[{"kind": "adapter", "bottleneck": 10**12}]), "times the width"),
    "huge network": (settings_with(methods=[{"kind": "prefix", "reparam_hidden": 10**30}]), "times the width"),
    "other rank": (settings_with(methods=[{"kind": "lora", "rank": 3}]), "state: got"),
}  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGE, *OLD_DAMAGE])
@pytest.mark.parametrize("old", [False, True])
def test_damage_is_said_in_one_sentence_and_the_model_left_alone(damage, old, tmp_path):
    folder = tmp_path / "t"
    saved("llama", folder)
    if old:
        as_format_1(folder, tiny("llama"))
    change, sentence = (DAMAGE | OLD_DAMAGE)[damage]
    change(folder)
    model = tiny("llama")
    modules = dict(model.named_modules())
    with pytest.raises(InputError) as error:
        load_tuning(model, folder)
    assert (sentence if old or damage in DAMAGE else "its checksum does not fit") in str(error.value)
    assert "\n" not in str(error.value)
    assert dict(model.named_modules()) == modules and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_old_folders_still_load(kind, tmp_path):
    logits, _ = saved(kind, tmp_path / "t", OLD)
    as_format_1(tmp_path / "t", tiny(kind))
    assert "softmax" not in (tmp_path / "t/tuning.json").read_text()
    model = tiny(kind)
    tuning = load_tuning(model, tmp_path / "t")
    assert torch.equal(model(**batch()).logits, logits)
    assert tuning.methods == OLD
    with pytest.raises(InputError, match="other weights in"):
        load_tuning(tiny(kind, wide=False), tmp_path / "t")
    tuning.save(tmp_path / "t")  # and become new ones
    assert [p.name for p in (tmp_path / "t").glob("*.safetensors")] == [weights(tmp_path / "t").name]
    model = tiny(kind)
    load_tuning(model, tmp_path / "t")
    assert torch.equal(model(**batch()).logits, logits)


def changed_tensors(change):
    def apply(folder):
        path = weights(folder)
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return apply


def swapped(tensors):
    names = sorted(n for n in tensors if n.endswith("q_proj.lora_A"))
    return tensors | {names[0]: tensors[names[1]], names[1]: tensors[names[0]]}


def with_first(change):
    def apply(tensors):
        name = min(n for n, t in tensors.items() if t.numel() > 1)
        return tensors | {name: change(tensors[name])}

    return apply


def bad_value(value):
    def apply(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[1] = value
        return tensor

    return with_first(apply)


TENSORS = {
    "NaN": bad_value(float("nan")),
    "infinite": bad_value(float("inf")),
    "another value": bad_value(0.125),
    "whole numbers": with_first(lambda t: t.to(torch.int8)),
    "truth values": with_first(lambda t: t > 0),
    "8 bit": with_first(lambda t: t.to(torch.float8_e4m3fn)),
    "half": with_first(lambda t: t.half()),
    "another shape": with_first(lambda t: t[:1]),
    "swapped": swapped,
    "missing": lambda tensors: dict(sorted(tensors.items())[1:]),
    "one more": lambda tensors: tensors | {"x": torch.ones(1)},
}
#: What cannot be seen without checksums.
UNSEEN = {"another value", "half", "swapped"}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("change", TENSORS)
def test_other_tensors_than_the_saved_ones_are_refused(change, old, tmp_path):
    folder = tmp_path / "t"
    saved("llama", folder)
    if old:
        as_format_1(folder, tiny("llama"))
    changed_tensors(TENSORS[change])(folder)
    model = tiny("llama")
    modules = dict(model.named_modules())
    if old and change in UNSEEN:
        load_tuning(model, folder)
        return
    with pytest.raises(InputError) as error:
        load_tuning(model, folder)
    assert "\n" not in str(error.value) and str(error.value).startswith("state: " if old else "folder: ")
    assert dict(model.named_modules()) == modules


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["methods"][0].update(alpha=17.0),
        lambda s: s["methods"][3].update(scale=2.0),
        lambda s: s["methods"][1].update(positions="shift"),
        lambda s: s.update(gating="unipelt"),
        lambda s: s["base"].update(dtype="float64"),
        lambda s: s["tensors"].popitem(),
        lambda s: s.update(weights="tuning-0123456789abcdef.safetensors"),
        lambda s: s.update(checksum=None),
        lambda s: s.update(note="mine"),
    ],
)
def test_any_other_setting_than_the_saved_ones_is_refused(change, tmp_path):
    saved("llama", tmp_path)
    path = tmp_path / "tuning.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match="its checksum does not fit"):
        load_tuning(tiny("llama"), tmp_path)


def test_settings_may_be_written_in_another_layout(tmp_path):
    logits, _ = saved("llama", tmp_path)
    path = tmp_path / "tuning.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=8))
    model = tiny("llama")
    load_tuning(model, tmp_path)
    assert torch.equal(model(**batch()).logits, logits)


@given(at=st.integers(0, 10**9), bit=st.integers(0, 7), which=st.sampled_from(["json", "safetensors"]))
@settings(max_examples=150, deadline=None)
def test_one_flipped_bit_is_refused_or_changes_nothing(one_folder, at, bit, which):
    folder, logits = one_folder
    (path,) = folder.glob(f"tuning*.{which}")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[at % len(whole)] ^= 1 << bit
    model = tiny("llama")
    try:
        path.write_bytes(damaged)
        load_tuning(model, folder)
    except InputError as error:
        assert "\n" not in str(error)
        assert not any("lora" in n for n, _ in model.named_parameters())
    else:
        assert torch.equal(model(**batch()).logits, logits)
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    return folder, saved("llama", folder)[0]


def test_one_changed_value_of_the_base_is_noticed(tmp_path):
    saved("llama", tmp_path)
    model = tiny("llama")
    model.model.embed_tokens.weight.data[7, 3] += 1e-3
    with pytest.raises(InputError, match=r"other weights in model\.embed_tokens\.weight"):
        load_tuning(model, tmp_path)


def test_what_is_not_finite_is_not_saved(tmp_path):
    tuning = attach(tiny("llama"), LoRA(2))
    tuning.parameters()[0].data.view(-1)[0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        tuning.save(tmp_path / "t")
    assert not (tmp_path / "t").exists()


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
        (before | {name: before[name].int()}, "of type torch.int32"),
        (before | {name: before[name].to(torch.float8_e5m2)}, "of type torch.float8_e5m2"),
        (before | {name: None}, "of type NoneType"),
        (before | {name: before[name] / 0}, "not finite"),
        (before | {name: before[name].double() * 1e300}, "not finite"),
    ):
        with pytest.raises(InputError, match=sentence):
            tuning.load_state_dict(state)
        assert all(torch.equal(t, moved[n]) for n, t in tuning.state_dict().items())
