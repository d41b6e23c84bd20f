"""Every notebook reruns by papermill with other parameters, and refuses unknown ones."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from chain import NOTEBOOKS, parameters
from small import SMALL

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def papermill(path: Path, cwd: Path, given: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Run a notebook as a reader does, in a folder of its own."""
    command = [sys.executable, "-m", "papermill", str(path), "out.ipynb", "--no-progress-bar"]
    yaml_given = ["--parameters_yaml", yaml.safe_dump(given, allow_unicode=True)]
    return subprocess.run([*command, *yaml_given], cwd=cwd, capture_output=True, text=True)


def test_small_parameters_are_declared_for_every_notebook_and_known_to_it() -> None:
    assert sorted(SMALL) == [path.stem for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        assert set(SMALL[path.stem]) <= set(parameters(path)), path.stem


@every_notebook
def test_reruns_small(path: Path, tmp_path: Path) -> None:
    result = papermill(path, tmp_path, SMALL[path.stem])
    assert result.returncode == 0, result.stderr[-3000:]
    for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells:
        assert not any(output.get("name") == "stderr" for output in cell.get("outputs", [])), cell.outputs


def test_a_sentiment_run_may_train_nothing_and_save_nothing(tmp_path: Path) -> None:
    run = next(path for path in NOTEBOOKS if path.stem == "10_sentiment_run")
    for given in ({"methods": ["zero-shot"]}, {**SMALL[run.stem], "save_tunings": False}):
        result = papermill(run, tmp_path, {**given, "seeds": [1]})
        assert result.returncode == 0, result.stderr[-3000:]


@every_notebook
def test_refuses_an_unknown_parameter_with_one_sentence(path: Path, tmp_path: Path) -> None:
    result = papermill(path, tmp_path, {"no_such_parameter": 1})
    assert result.returncode != 0
    assert "no_such_parameter: got 1; accepted: no such parameter; known are" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["out.ipynb"]
