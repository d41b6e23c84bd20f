"""The committed notebooks and their cells, as the tests look at them."""

import ast
from functools import cache
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@cache
def cells(path: Path) -> list[nbformat.NotebookNode]:
    return list(nbformat.read(path, as_version=4).cells)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in cells(path) if cell.cell_type == "code"]


def text(path: Path) -> str:
    """All markdown cells, one after the other."""
    return "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def parameters(path: Path) -> dict[str, object]:
    """Names and values of the parameters cell; anything but a literal raises."""
    (cell,) = (cell for cell in code_cells(path) if "parameters" in tags(cell))
    values = {}
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign | ast.AnnAssign), ast.unparse(statement)
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        assert isinstance(target, ast.Name) and statement.value is not None, ast.unparse(statement)
        values[target.id] = ast.literal_eval(statement.value)
    return values
