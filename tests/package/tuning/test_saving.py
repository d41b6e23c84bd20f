"""Saving writes the tuning's own files and nothing else, and a reader finds the old or the new tuning, whole."""

import json
import multiprocessing
import os
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from peft import PeftModel
from stopping import Stop, stop_at
from tiny_models import batch, jitter, largest, real, tiny

from hybridft_utils import InputError, LoRA, Prefix, attach, import_peft, load_tuning
from hybridft_utils import files as files_module
from hybridft_utils.tuning import saved_folder
from hybridft_utils.tuning.saved_folder import read_tuning

pytestmark = pytest.mark.filterwarnings("ignore")
OWN = {"save": {"tuning.json"}, "export_peft": {"adapter_config.json", "adapter_model.safetensors"}}
READ = {"save": load_tuning, "export_peft": import_peft}
WAYS = list(OWN)


def moved(rank=2, seed=1):
    model = tiny("llama")  # the first of its kind draws from the same generator
    torch.manual_seed(seed)
    tuning = attach(model, LoRA(rank))
    jitter(tuning)
    return tuning


def variant(way, number):
    """Tunings that may replace one another: of other ranks, or for PEFT of the same settings."""
    return moved(number) if way == "save" else moved(seed=number)


def answers(read, folder):
    model = tiny("llama")
    read(model, folder)
    return model(**batch()).logits


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def fill(folder):
    """Other files: a model, notes, results, hidden ones, another tuning's folder."""
    kept = (
        "model.safetensors",
        "config.json",
        "notes.md",
        ".hidden",
        "results/results.json",
        "lora/tuning.json",
    )
    for name in kept:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return {name: name for name in names(folder) if (folder / name).is_file()}


@pytest.mark.parametrize("way", WAYS)
def test_everything_else_in_the_folder_stays(way, tmp_path):
    kept = fill(tmp_path)
    for number in (2, 3):
        getattr(variant(way, number), way)(tmp_path)
        assert {n: (tmp_path / n).read_text() for n in kept} == kept
        new = {n for n in names(tmp_path) if (tmp_path / n).is_file()} - kept.keys()
        assert {n for n in new if not n.startswith("tuning-")} == OWN[way]
        assert len(new) == 2
        assert torch.equal(answers(READ[way], tmp_path), variant(way, number).model(**batch()).logits)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", [".", "absolute", "link", "new/er"])
def test_every_way_to_name_a_folder(way, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = fill(tmp_path)
    (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
    link = tmp_path.parent / f"{tmp_path.name}-link"
    folder = {".": ".", "absolute": os.getcwd(), "link": str(link), "new/er": "new/er"}[place]
    getattr(moved(), way)(folder)
    assert torch.equal(answers(READ[way], folder), moved().model(**batch()).logits)
    assert {n: (tmp_path / n).read_text() for n in kept} == kept
    assert link.is_symlink()


def test_save_and_export_share_a_folder(tmp_path):
    tuning = moved()
    logits = tuning.model(**batch()).logits
    for first, second in (WAYS, WAYS[::-1]):
        folder = tmp_path / first
        getattr(tuning, first)(folder)
        getattr(tuning, second)(folder)
        assert all(torch.equal(answers(READ[way], folder), logits) for way in WAYS)
        assert largest(PeftModel.from_pretrained(tiny("llama"), folder)(**batch()).logits, logits) < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_a_place_that_cannot_be_written_is_a_sentence(way, tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "taken" / "tuning.json").mkdir(parents=True)
    (tmp_path / "taken" / "adapter_config.json").mkdir()
    for place in (tmp_path / "file", tmp_path / "file" / "a", tmp_path / "taken", "/proc/tuning", "a\0b"):
        with pytest.raises(InputError) as error:
            getattr(moved(), way)(place)
        assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path / "taken") == ["adapter_config.json", "tuning.json"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_stopped_anywhere_the_old_or_the_new_tuning_is_there_whole(way, after, tmp_path):
    old, new = variant(way, 2), variant(way, 3)
    logits = [t.model(**batch()).logits for t in (old, new)]
    found = set()
    for number in range(1, 40):
        folder = tmp_path / str(number)
        getattr(old, way)(folder)
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, number, after)
            try:
                getattr(new, way)(folder)
            except Stop:
                stopped = True
            else:
                stopped = False
        there = answers(READ[way], folder)
        found |= {i for i in (0, 1) if torch.equal(there, logits[i])}
        assert any(torch.equal(there, wanted) for wanted in logits)
        getattr(new, way)(folder)  # a good save leaves nothing of the bad one
        assert len(names(folder)) == 2
        if not stopped:
            break
    assert not stopped and number > 4 and found == {0, 1}


def save_for_ever(way, folder, numbers):
    torch.set_num_threads(1)
    tunings = [variant(way, number) for number in numbers]
    while True:
        for tuning in tunings:
            getattr(tuning, way)(folder)


@pytest.mark.parametrize("way", WAYS)
def test_readers_beside_writers_and_a_killed_writer(way, tmp_path):
    wanted = [variant(way, number).model(**batch()).logits for number in (2, 3, 4)]
    getattr(variant(way, 2), way)(tmp_path)
    fork = multiprocessing.get_context("fork")
    writers = [
        fork.Process(target=save_for_ever, args=(way, tmp_path, r), daemon=True) for r in ((2, 3), (3, 4))
    ]
    for writer in writers:
        writer.start()
    seen = []
    while len(seen) < 60:
        there = answers(READ[way], tmp_path)
        seen += [next(i for i, logits in enumerate(wanted) if torch.equal(there, logits))]
    assert all(writer.is_alive() for writer in writers) and len(set(seen)) > 1
    for writer in writers:
        writer.kill()
        writer.join()
    assert any(torch.equal(answers(READ[way], tmp_path), logits) for logits in wanted)
    getattr(variant(way, 4), way)(tmp_path)
    assert len(names(tmp_path)) == 2
    assert torch.equal(answers(READ[way], tmp_path), wanted[2])


def test_a_reader_that_a_save_overtakes_looks_again(tmp_path, monkeypatch):
    moved(2).save(tmp_path)
    saves, content_of = [moved(3), moved(4)], saved_folder.content_of

    def overtaken(path):
        if saves:
            saves.pop(0).save(tmp_path)
        return content_of(path)

    monkeypatch.setattr(saved_folder, "content_of", overtaken)
    assert torch.equal(answers(load_tuning, tmp_path), moved(4).model(**batch()).logits)


def test_two_writers_in_one_process(tmp_path):
    failed = []

    def write(rank):
        try:
            tuning = moved(rank)
            for _ in range(10):
                tuning.save(tmp_path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(rank,)) for rank in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(names(tmp_path)) == 2
    read_tuning(tmp_path)


def test_a_save_waits_for_another_one_and_then_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_folder, "PATIENCE", 0.2)
    refused = pytest.raises(InputError, match="no other run is writing to")
    with files_module.exclusive(tmp_path, "folder"), refused:
        moved().save(tmp_path)


def test_peft_files_that_were_not_written_together_are_refused(tmp_path):
    moved(2).export_peft(tmp_path / "a")
    tuning = attach(tiny("llama"), LoRA(2, alpha=4))
    tuning.export_peft(tmp_path / "b")
    (tmp_path / "a/adapter_config.json").write_text((tmp_path / "b/adapter_config.json").read_text())
    with pytest.raises(InputError, match="written together"):
        import_peft(tiny("llama"), tmp_path / "a")
    settings = json.loads((tmp_path / "b/adapter_config.json").read_text())
    settings |= {"base_model_name_or_path": "elsewhere", "inference_mode": False}
    (tmp_path / "b/adapter_config.json").write_text(json.dumps(settings))
    import_peft(tiny("llama"), tmp_path / "b")  # where the base lies may be changed by hand


NAME = st.text(st.sampled_from("ab.-_ é"), min_size=1, max_size=8).filter(
    lambda n: n.strip(".") and n != "tuning.json"
)


@given(
    others=st.dictionaries(NAME, st.binary(max_size=20), max_size=6),
    ways=st.lists(st.sampled_from(WAYS), max_size=3),
)
@examples(max_examples=25, deadline=None)
def test_files_of_any_name_stay(others, ways, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    for name, content in others.items():
        (folder / name).write_bytes(content)
    for number, way in enumerate(ways, start=1):
        getattr(variant(way, number), way)(folder)
    assert {n: (folder / n).read_bytes() for n in others} == others
    assert len(names(folder)) == len(others) + 2 * len(set(ways))


def test_a_prefix_is_exported_beside_other_files(tmp_path):
    kept = fill(tmp_path)
    tuning = attach(tiny("llama"), Prefix(3, softmax="joint"))
    jitter(tuning)
    tuning.export_peft(tmp_path)
    theirs = PeftModel.from_pretrained(tiny("llama"), tmp_path).eval()(**batch()).logits[:, -9:]
    assert largest(real(theirs, batch()), real(tuning.model(**batch()).logits, batch())) < 1e-5
    assert {n: (tmp_path / n).read_text() for n in kept} == kept
