"""``make repo-url`` writes one address into every place, and takes it out again."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from repository import copy_repository, set_address

from hybridft_utils import InputError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = copy_repository(tmp_path / "copy")
    if not list((folder / "notebooks").glob("*.ipynb")):
        pytest.fail("there is no notebook yet")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize("url", ["file:///somewhere/book", "https://github.com/someone/book"])
def test_address_is_set_everywhere_and_taken_out(copy: Path, url: str) -> None:
    set_address(copy, "")
    before = contents(copy)
    assert set_address(copy, f"{url}.git").returncode == 0

    config = yaml.safe_load((copy / "_config.yml").read_text())
    assert config["repository"]["url"] == url
    assert bool(config["launch_buttons"]) == ("github.com" in url)
    bootstrap = (copy / "book" / "bootstrap.py").read_text()
    assert f'REPOSITORY = "{url}"' in bootstrap
    for path in (copy / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
        assert cell.source.rstrip() == bootstrap.rstrip()
    assert yaml.safe_load((copy / "CITATION.cff").read_text())["repository-code"] == url
    assert ("colab.research.google.com" in (copy / "README.md").read_text()) == ("github.com" in url)

    assert set_address(copy, "").returncode == 0
    assert contents(copy) == before


DEAD = [
    'https://x.org/a"b',
    "git@github.com:a/b",
    "no address",
    "http://github.com/a/b",
    "https://github.com",
    "https://github.com/you",
    "https://www.github.com/you/book",
    "https://github.com/you/book/tree/main",
    "https://github.com/you/..",
    "https://gitlab.com/you/book/-/tree/main",
    "https://codeberg.org/you/book/blob/main/README.md",
]


@pytest.fixture(scope="module")
def tool(root: Path):
    """tools/repo_url.py as a module."""
    spec = importlib.util.spec_from_file_location("repo_url", root / "tools" / "repo_url.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("url", DEAD)
def test_an_address_without_a_repository_is_refused(tool, url: str) -> None:
    with pytest.raises(InputError, match=r"^URL: got .*; accepted: https://github.com/OWNER/REPOSITORY"):
        tool.checked(url)


NAMES = st.text("abcXYZ019-", min_size=1, max_size=8)


@given(NAMES, NAMES, st.sampled_from(["", "/", ".git", ".git/"]), st.lists(NAMES, min_size=1, max_size=3))
def test_on_github_a_repository_is_an_owner_and_a_name(tool, owner: str, name: str, end: str, more) -> None:
    url = f"https://github.com/{owner}/{name}"
    assert tool.checked(url + end) == url
    for dead in (f"https://github.com/{owner}", "/".join([url, *more])):
        with pytest.raises(InputError, match=r"^URL: got "):
            tool.checked(dead)


def test_a_dead_address_changes_nothing(copy: Path) -> None:
    before = contents(copy)
    result = set_address(copy, "https://github.com/you/book/tree/main")
    assert result.returncode != 0 and "; accepted: " in result.stderr
    assert len(result.stderr.splitlines()) == 1 and contents(copy) == before


def test_no_address_at_all_is_one_sentence(copy: Path) -> None:
    command = [sys.executable, str(copy / "tools" / "repo_url.py")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    assert result.stderr == "arguments: got []; accepted: one address.\n"


def test_either_every_file_changes_or_none(copy: Path) -> None:
    damage = "README.md"  # the last one
    (copy / damage).write_text("nothing to replace here")
    before = contents(copy)
    result = set_address(copy, "https://github.com/someone/book")
    assert result.returncode != 0 and result.stderr.startswith(f"{damage}: got ")
    assert len(result.stderr.splitlines()) == 1 and contents(copy) == before


def test_a_place_that_cannot_be_written_leaves_every_file(copy: Path) -> None:
    """The disk is full when README.md, the last one, is written."""
    before = contents(copy)
    (copy / "tools" / "full_disk.py").write_text(FULL_DISK)
    command = [sys.executable, str(copy / "tools" / "full_disk.py"), "https://github.com/someone/book"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0 and "No space left" in result.stderr
    (copy / "tools" / "full_disk.py").unlink()
    assert contents(copy) == before


FULL_DISK = """
import pathlib, sys
import repo_url

write = pathlib.Path.write_bytes

def full(path, content):
    if b"badges" in content:
        raise OSError(28, "No space left on device")
    return write(path, content)

pathlib.Path.write_bytes = full
try:
    repo_url.main(sys.argv[1:])
except repo_url.InputError as error:
    sys.exit(str(error))
"""
