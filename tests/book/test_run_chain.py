"""``tools/run_chain.py`` runs copies of the notebooks and removes nothing that it did not make."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from repository import copy_repository


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository with two short notebooks."""
    folder = copy_repository(tmp_path / "copy")
    for path in (folder / "notebooks").glob("*.ipynb"):
        path.unlink()
    for name in ("01_one", "02_two"):
        write_notebook(folder, name, f"print('this is', {name!r})")
    return folder


def write_notebook(folder: Path, name: str, source: str) -> None:
    cell = nbformat.v4.new_code_cell(source)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "notebooks" / f"{name}.ipynb")


def run_chain(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/run_chain.py", *arguments]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_second_run_replaces_what_the_first_made(copy: Path) -> None:
    before = contents(copy)
    for _ in range(2):
        done = run_chain(copy, "made", "2")
        assert done.returncode == 0, done.stderr
        assert not done.stderr and "[2/2]" in done.stdout and len(done.stdout.splitlines()) == 3
        ran = nbformat.read(copy / "made/notebooks/02_two.ipynb", as_version=4)
        assert ran.cells[0].outputs[0].text == "this is 02_two\n"
        assert (copy / "made/_config.yml").is_file() and (copy / "made/book/index.md").is_file()
        (copy / "made/notebooks/left.ipynb").write_text("from an earlier run")
    assert {n: b for n, b in contents(copy).items() if not n.startswith("made")} == before


@pytest.mark.parametrize("arguments", [(".",), ("mine",), ("file",), ("notebooks/x",), ("link",), ("..",)])
def test_a_folder_of_somebody_else_is_refused(copy: Path, arguments: tuple[str, ...]) -> None:
    (copy / "mine").mkdir()
    (copy / "mine/thesis.md").write_text("years of work")
    (copy / "file").write_text("a file")
    (copy / "link").symlink_to(copy / "mine")
    before = contents(copy.parent)
    done = run_chain(copy, *arguments)
    assert done.returncode != 0 and done.stderr.startswith("FOLDER: got ")
    assert len(done.stderr.splitlines()) == 1 and contents(copy.parent) == before


@pytest.mark.parametrize(
    "arguments", [(), ("a", "0"), ("a", "abc"), ("a", "-1"), ("a", "1.5"), ("a", "1", "2")]
)
def test_bad_arguments_delete_nothing(copy: Path, arguments: tuple[str, ...]) -> None:
    assert run_chain(copy, "a").returncode == 0
    before = contents(copy)
    done = run_chain(copy, *arguments)
    assert done.returncode != 0 and "; accepted: " in done.stderr
    assert len(done.stderr.splitlines()) == 1 and contents(copy) == before


@pytest.mark.parametrize(
    ("source", "words"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("import os; os._exit(9)", "Kernel died")],
)
def test_a_notebook_that_stops_is_named_with_its_log(copy: Path, source: str, words: str) -> None:
    write_notebook(copy, "02_two", source)
    done = run_chain(copy, "made", "1")
    assert done.returncode != 0 and words in done.stderr and done.stderr.startswith("02_two stopped")
    log = Path(done.stderr.splitlines()[-1].removeprefix("The whole log: "))
    assert words in log.read_text() and len(done.stderr.splitlines()) < 20
