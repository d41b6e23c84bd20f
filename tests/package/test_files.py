"""Every file is replaced whole or not at all, whatever stops the writer."""

import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from hybridft_utils.errors import InputError
from hybridft_utils.files import (
    check_writable,
    exclusive,
    read_json,
    replacing,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, stop):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(stop), replacing(tmp_path / "a.txt") as fresh:
        fresh.write_text("half")
        raise stop
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_what_else_is_in_the_folder_stays(tmp_path):
    for name in (".a.txt.partial", ".a.txt-x-old", "b.txt"):
        (tmp_path / name).write_text(name)
    write_text(tmp_path / "a.txt", "new")
    assert {n: (tmp_path / n).read_text() for n in names(tmp_path)} == {
        ".a.txt.partial": ".a.txt.partial",
        ".a.txt-x-old": ".a.txt-x-old",
        "a.txt": "new",
        "b.txt": "b.txt",
    }


def test_written_files_have_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "text", "")
    write_tensors(tmp_path / "tensors", {"x": torch.ones(2)})
    modes = {(tmp_path / n).stat().st_mode for n in names(tmp_path)}
    assert len(modes) == 1


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "real").read_text() == "new"
    assert names(tmp_path / "there") == ["real"]


def refused(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/null")
    return {
        "a folder": tmp_path / "folder",
        "a device": tmp_path / "device",
        "below a file": tmp_path / "file" / "a",
        "a long name": tmp_path / ("a" * 300),
        "NUL": f"{tmp_path}/a\0b",
        "a place that is read-only": "/proc/a",
    }


@pytest.mark.parametrize(
    "place", ["a folder", "a device", "below a file", "a long name", "NUL", "a place that is read-only"]
)
@pytest.mark.parametrize(
    "write",
    [lambda p: write_bytes(p, b"x"), lambda p: write_json(p, 1), lambda p: write_tensors(p, {"x": torch.ones(1)})],
)  # fmt: skip
def test_places_that_cannot_be_written_are_refused_in_a_sentence(tmp_path, place, write):
    path = refused(tmp_path)[place]
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"^file: got ") as error:
        write(path)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "kept"
    assert not names(tmp_path / "folder")


@pytest.mark.parametrize("writer", [write_text, lambda p, c: write_tensors(p, {"x": torch.ones(9)})])
def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch, writer):
    write_text(tmp_path / "a", "old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"accepted: a place that can be written to \(No space left on device"
    ):
        writer(tmp_path / "a", "new")
    with pytest.raises(InputError, match=r"output_dir: .*No space left"):
        check_writable(tmp_path, "output_dir")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_a_place_is_tried_before_the_work(tmp_path):
    check_writable(tmp_path / "a" / "b", "output_dir")
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "a", "/proc/a", "a\0", "a" * 300):
        with pytest.raises(InputError, match=r"^output_dir: got "):
            check_writable(place, "output_dir")


def test_two_writers_race_without_harm(tmp_path):
    contents = [str(i) * 100_000 for i in range(4)]
    seen, failed = set(), []

    def write(content):
        try:
            for _ in range(30):
                write_text(tmp_path / "a", content)
        except BaseException as error:
            failed.append(error)
            raise

    write_text(tmp_path / "a", contents[0])
    threads = [threading.Thread(target=write, args=(c,)) for c in contents]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        seen.add((tmp_path / "a").read_text())
    assert not failed and seen <= set(contents) and names(tmp_path) == ["a"]


def hold(folder, held):
    with exclusive(folder, "output_dir"), replacing(folder / "a") as fresh:
        fresh.write_text("half")
        held.set()
        threading.Event().wait()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    other = fork.Process(target=hold, args=(tmp_path / "out", held))
    other.start()
    assert held.wait(60)
    refused = pytest.raises(InputError, match=r"^output_dir: .*no other run")
    with refused as error, exclusive(tmp_path / "out", "output_dir"):
        pass
    assert "\n" not in str(error.value)
    other.kill()
    other.join()
    assert len(names(tmp_path / "out")) == 2  # the lock, and what was half written
    (tmp_path / "out" / ".mine.partial").write_text("")
    with exclusive(tmp_path / "out", "output_dir"):
        assert not (tmp_path / "out" / "a").exists()
    assert names(tmp_path / "out") == [".mine.partial"]


def test_a_lock_is_held_once_even_in_one_process(tmp_path):
    with exclusive(tmp_path, "output_dir"), pytest.raises(InputError), exclusive(tmp_path, "output_dir"):
        pass
    with exclusive(tmp_path, "output_dir"):
        assert names(tmp_path)
    assert not names(tmp_path)


def test_waiting_writers_take_turns(tmp_path):
    inside, most = [0], [0]

    def enter():
        for _ in range(20):
            with exclusive(tmp_path, "folder", wait=30):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [0] and most == [1] and not names(tmp_path)


@given(content=st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
                            lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_json_comes_back(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, content)
    assert read_json(path, "file") == content


@given(at=st.integers(0, 10**6), byte=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_damaged_json_is_read_or_refused_in_a_sentence(tmp_path_factory, at, byte):
    path = tmp_path_factory.mktemp("json") / "a.json"
    whole = bytearray(
        json.dumps([{"text": "né", "n": [i, None]} for i in range(3)], ensure_ascii=False).encode()
    )
    whole[at % len(whole)] = byte
    path.write_bytes(whole)
    try:
        read_json(path, "results")
    except InputError as error:
        assert str(error).startswith("results: got ") and "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"a": 1,}'])
def test_no_json_is_a_sentence(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=r"^results: got ") as error:
        read_json(tmp_path / "a", "results")
    assert "\n" not in str(error.value)
    for missing in (tmp_path / "b", tmp_path):
        with pytest.raises(InputError, match=r"^results: got .*a file that can be read"):
            read_json(missing, "results")


def test_text_that_utf8_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match="UTF-8"):
        write_json(tmp_path / "a", {"text": "\ud800"})
    assert not names(tmp_path)


def test_tensors_come_back(tmp_path):
    state = {
        "x": torch.arange(6.0).view(2, 3).T,
        "y": torch.ones(2, dtype=torch.bfloat16, requires_grad=True),
    }
    write_tensors(tmp_path / "a", state)
    assert all(torch.equal(t, state[n]) for n, t in load_file(tmp_path / "a").items())
    assert names(Path(tmp_path)) == ["a"]
