"""``make repo-url`` writes one address into every place, and takes it out again."""

from pathlib import Path

import nbformat
import pytest
import yaml
from repository import copy_repository, set_address


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = copy_repository(tmp_path / "copy")
    if not list((folder / "notebooks").glob("*.ipynb")):
        pytest.fail("there is no notebook yet")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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


@pytest.mark.parametrize("url", ['https://x.org/a"b', "git@github.com:a/b", "no address"])
def test_a_bad_address_changes_nothing(copy: Path, url: str) -> None:
    before = contents(copy)
    result = set_address(copy, url)
    assert result.returncode != 0 and "accepted" in result.stderr
    assert contents(copy) == before
