"""A PEFT folder holds no adapter or a whole one, whatever is exported into it and whenever that is killed."""

import shutil
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from stopping import killed_at
from tiny_models import batch, jitter, largest, tiny

from hybridft_utils import InputError, LoRA, Prefix, SoftPrompt, attach, import_peft

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
METHODS = {
    "lora": LoRA(2),
    "the same shapes": LoRA(2, alpha=64),
    "another rank": LoRA(3),
    "other layers": LoRA(2, target_modules=("q_proj", "v_proj")),
    "prefix": Prefix(3, softmax="joint", positions="shift"),
    "prompt": SoftPrompt(3),
}
#: Names of the settings, and a seed of the tensors.
adapters = st.tuples(st.sampled_from(list(METHODS)), st.integers(1, 2))


@cache
def tuned(name, seed):
    model = tiny("llama")
    torch.manual_seed(seed)
    tuning = attach(model, METHODS[name])
    jitter(tuning, 0.2, seed)
    return tuning, model(**batch("full")).logits.detach()


def in_peft(folder):
    logits = PeftModel.from_pretrained(tiny("llama"), folder).eval()(**batch("full")).logits
    return logits[:, -9:].detach()  # a soft prompt's own positions come first


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(old=st.none() | adapters, new=adapters, number=st.integers(1, 9), after=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_killed_export_leaves_the_old_or_the_new_adapter_or_none(old, new, number, after, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    (tuning, wanted), choices = tuned(*new), []
    if old:
        tuned(*old)[0].export_peft(folder)
        choices.append(tuned(*old)[1])
        before = contents(folder)
        if METHODS[old[0]] != METHODS[new[0]]:
            with pytest.raises(InputError, match=r"^folder: got 'an adapter of other ") as error:
                tuning.export_peft(folder)
            assert "\n" not in str(error.value) and contents(folder) == before
            return
    killed = killed_at(number, after, lambda: tuning.export_peft(folder))
    if (folder / CONFIG).exists():
        found = in_peft(folder)
        assert any(largest(found, logits) < 1e-4 for logits in [*choices, wanted])
        model = tiny("llama")
        import_peft(model, folder)
        assert largest(model(**batch("full")).logits, found) < 1e-4
    else:
        assert killed and not old
    tuning.export_peft(folder)  # goes through, and clears up
    assert largest(in_peft(folder), wanted) < 1e-4 and contents(folder).keys() == {CONFIG, WEIGHTS}


@pytest.mark.parametrize("left", [{WEIGHTS}, {WEIGHTS, "adapter_model.bin"}, {"adapter_model.bin"}])
def test_what_is_no_adapter_without_settings_is_none(left, tmp_path):
    """Tensors that a killed export or PEFT left are not read, and do not stop the next export."""
    tuned("another rank", 1)[0].export_peft(tmp_path / "other")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in left:
        shutil.copy(tmp_path / "other" / WEIGHTS, folder / name)
    with pytest.raises(InputError, match=f"a folder with {CONFIG}"):
        import_peft(tiny("llama"), folder)
    with pytest.raises(ValueError, match=CONFIG):
        PeftModel.from_pretrained(tiny("llama"), str(folder))
    tuning, wanted = tuned("lora", 1)
    tuning.export_peft(folder)
    assert largest(in_peft(folder), wanted) < 1e-4
    assert ("adapter_model.bin" in contents(folder)) == ("adapter_model.bin" in left)


@pytest.mark.parametrize("content", ["{", "[]", '{"peft_type": "LORA"}', ""])
def test_settings_that_are_damaged_or_others_stay(content, tmp_path):
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(InputError, match=r"^folder: got ") as error:
        tuned("lora", 1)[0].export_peft(tmp_path)
    assert "\n" not in str(error.value) and contents(tmp_path) == {CONFIG: content.encode()}


def test_the_same_settings_in_another_layout_are_the_same(tmp_path):
    tuned("lora", 1)[0].export_peft(tmp_path)
    written = (tmp_path / CONFIG).read_text()
    (tmp_path / CONFIG).write_text(
        written.replace("\n", "  ").replace('"lora_alpha": 16.0', '"lora_alpha": 16')
    )
    assert (tmp_path / CONFIG).read_text() != written.replace("\n", "  ")
    tuning, wanted = tuned("lora", 2)
    tuning.export_peft(tmp_path)
    model = tiny("llama")
    import_peft(model, tmp_path)
    assert torch.equal(model(**batch("full")).logits, wanted)


def test_a_hybrid_in_two_steps_needs_two_folders(tmp_path):
    hybrid = attach(tiny("llama"), LoRA(2), Prefix(3, softmax="joint", positions="shift"))
    attach(tiny("llama"), LoRA(2)).export_peft(tmp_path)
    before = contents(tmp_path)
    hybrid.merge()
    with pytest.raises(
        InputError, match=r"an adapter of other .*without a PEFT adapter, or with one of the same"
    ):
        hybrid.export_peft(tmp_path)
    assert contents(tmp_path) == before
