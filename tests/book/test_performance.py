"""The page on speed says what the measurements' files say."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from benchmarks.speed.profiles import group
from benchmarks.speed.rounds import ratios, take_turns


def said(page: nbformat.NotebookNode) -> list[str]:
    """The sentences and tables that the page's cells gave, in order."""
    outputs = [output for cell in page.cells for output in cell.get("outputs", [])]
    return [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]


def test_numbers_come_from_the_files(root: Path) -> None:
    path = root / "book" / "performance.ipynb"
    committed, fresh = (nbformat.read(path, as_version=4) for _ in range(2))
    NotebookClient(fresh, timeout=120, resources={"metadata": {"path": path.parent}}).execute()
    assert len(said(fresh)) >= 9
    assert said(committed) == said(fresh)


def test_ratios_are_those_of_one_round() -> None:
    found = ratios({"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 8.0], "c": [1.0, 4.0, 12.0]}, "a")
    assert found["b"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert found["c"] == {"median": 2.0, "low": 1.5, "high": 2.5}


def test_candidates_take_turns() -> None:
    order: list[str] = []
    seconds = take_turns({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert order == list("ababab")
    assert [len(values) for values in seconds.values()] == [2, 2], "the first round warms up"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aten::addmm_", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::mul", "everything else"),
    ],
)
def test_operations_are_grouped_by_what_they_do(name: str, expected: str) -> None:
    assert group(name) == expected
