"""What every notebook keeps to: its skeleton, its outputs, its figures, its exercises."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from chain import NOTEBOOKS, ROOT, cells, code_cells, parameters, tags, text

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_is_valid_and_has_a_known_kernel(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata, "this is an output of papermill"


@every_notebook
def test_was_executed_from_top_to_bottom_without_a_complaint(path: Path) -> None:
    counts = []
    for cell in code_cells(path):
        counts.append(cell.execution_count)
        for output in cell.outputs:
            assert output.get("name") != "stderr", output
            assert output.output_type != "error" or "raises-exception" in tags(cell), output
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_opens_with_title_bootstrap_parameters_and_imports(path: Path) -> None:
    first, bootstrap, given, imports = cells(path)[:1] + code_cells(path)[:3]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert len(re.findall(r"^# ", text(path), re.M)) == 1, "one title"
    assert bootstrap.source.strip() == (ROOT / "book" / "bootstrap.py").read_text().strip()
    assert "remove-cell" in tags(bootstrap)
    assert "parameters" in tags(given)
    statements = ast.parse(imports.source).body
    calls = [ast.unparse(s) for s in statements if not isinstance(s, ast.Import | ast.ImportFrom)]
    assert any(call.startswith("check_parameters(globals()") for call in calls[:2]), calls


@every_notebook
def test_parameters_are_literals_with_a_seed(path: Path) -> None:
    names = parameters(path)
    assert {"seed", "seeds"} & set(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)


@every_notebook
def test_every_picture_has_an_alt_text_a_caption_and_a_name(path: Path) -> None:
    seen = set()
    for cell in code_cells(path):
        pictures = [o for o in cell.outputs if any(k.startswith("image/") for k in o.get("data", {}))]
        if not pictures or "remove-output" in tags(cell):
            continue
        assert len(pictures) == 1, f"{cell.id}: one picture a cell"
        described = cell.metadata.get("mystnb", {})
        assert len(described.get("image", {}).get("alt", "")) >= 20, cell.id
        figure = described.get("figure", {})
        assert len(figure.get("caption", "")) >= 20, cell.id
        assert figure.get("name", "").startswith("fig-") and figure["name"] not in seen, cell.id
        seen.add(figure["name"])


@every_notebook
def test_every_exercise_has_an_executed_solution(path: Path) -> None:
    exercises = re.findall(r"\{exercise(?:-start)?\}(.*)\n(?:.*\n)*?:label: (\S+)", text(path))
    labels = [label for _, label in exercises]
    assert len(labels) >= 4 and len(set(labels)) == len(labels)
    assert {title.count("★") for title, _ in exercises} == {1, 2}, "two levels: ★ and ★★"

    solved, inside = {}, None
    for cell in cells(path):
        if cell.cell_type == "code":
            if inside:
                solved[inside] += 1
        elif start := re.search(r"\{solution-start\} (\S+)\n(.*\n)*?:class: dropdown", cell.source):
            inside = start[1]
            solved[inside] = 0
        elif "{solution-end}" in cell.source:
            inside = None
    assert sorted(solved) == sorted(labels)
    assert all(solved.values()), "a solution without a code cell"
