"""The first cell of every notebook finds the package wherever the notebook runs."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from repository import ISOLATED, ROOT, commit, copy_repository, isolated_kernel, set_address

WHERE = "import importlib.util\nprint('FOUND', importlib.util.find_spec('hybridft_utils').origin)"


def papermill(bootstrap: Path, cwd: Path, kernel: str, environment: dict[str, str]) -> str:
    """Run the bootstrap cell by papermill in ``cwd``; returns all that was printed."""
    cells = [nbformat.v4.new_code_cell(bootstrap.read_text()), nbformat.v4.new_code_cell(WHERE)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": kernel, "display_name": "", "language": "python"}
    path = cwd.parent / "bootstrap.ipynb"
    nbformat.write(notebook, path)
    result = subprocess.run(
        [sys.executable, "-m", "papermill", str(path), str(cwd.parent / "out.ipynb"), "--log-output"],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return f"{result.stdout}{result.stderr}rc={result.returncode}"


def test_in_the_repository(tmp_path: Path) -> None:
    copy = copy_repository(tmp_path / "copy")
    (copy / "notebooks").mkdir(exist_ok=True)
    printed = papermill(
        copy / "book" / "bootstrap.py", copy / "notebooks", "isolated", isolated_kernel(tmp_path / "jupyter")
    )
    assert f"FOUND {copy / 'hybridft_utils' / '__init__.py'}" in printed


def test_by_papermill_from_another_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    printed = papermill(ROOT / "book" / "bootstrap.py", elsewhere, "python3", {})
    assert f"FOUND {ROOT / 'hybridft_utils' / '__init__.py'}" in printed
    assert list(elsewhere.iterdir()) == []


def test_in_an_empty_folder_it_clones_the_repository_once(tmp_path: Path) -> None:
    copy = copy_repository(tmp_path / "copy")
    assert set_address(copy, copy.as_uri()).returncode == 0
    commit(copy)
    empty = tmp_path / "empty" / "folder"
    empty.mkdir(parents=True)
    environment = isolated_kernel(tmp_path / "jupyter")
    found = f"FOUND {empty / 'hybridft-book' / 'hybridft_utils' / '__init__.py'}"
    assert found in papermill(copy / "book" / "bootstrap.py", empty, "isolated", environment)
    (copy / ".git").rename(copy / "gone")  # a second run needs no repository
    assert found in papermill(copy / "book" / "bootstrap.py", empty, "isolated", environment)


def run_isolated(bootstrap: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ISOLATED, f"{bootstrap}\n{WHERE}"],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("", "is not installed and not in"),
        ("file:///nowhere/book", "git could not clone file:///nowhere/book"),
    ],
)
def test_without_a_package_it_says_so(tmp_path: Path, address: str, sentence: str) -> None:
    text = (ROOT / "book" / "bootstrap.py").read_text()
    text = re.sub("^REPOSITORY = .*$", f"REPOSITORY = {address!r}", text, flags=re.M)
    result = run_isolated(text, tmp_path)
    assert result.returncode != 0
    assert sentence in result.stderr.splitlines()[-1]


def test_only_missing_packages_are_installed_and_never_torch_or_numpy(tmp_path: Path) -> None:
    copy = copy_repository(tmp_path / "copy")
    project = copy / "pyproject.toml"
    asked = '"tqdm>=4.66",\n  "numpy>=99",\n  "torch>=99",\n  "hft-probe>=1",'
    text = project.read_text().replace('"tqdm>=4.66",', asked)
    assert asked in text
    project.write_text(text)
    set_address(copy, copy.as_uri())
    commit(copy)
    wheels, target, empty = tmp_path / "wheels", tmp_path / "target", tmp_path / "empty"
    wheels.mkdir()
    empty.mkdir()
    with zipfile.ZipFile(wheels / "hft_probe-1.0-py3-none-any.whl", "w") as wheel:
        info = "hft_probe-1.0.dist-info"
        wheel.writestr("hft_probe.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hft-probe\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    bootstrap = (copy / "book" / "bootstrap.py").read_text()
    result = run_isolated(bootstrap, empty, PIP_TARGET=str(target), **offline)
    assert result.returncode == 0, result.stderr
    installed = {path.name for path in target.iterdir()} - {"__pycache__"}
    assert installed == {"hft_probe.py", "hft_probe-1.0.dist-info"}
