"""A lesson cell that names a package object defines the same thing as the package."""

import ast
import re
from pathlib import Path

import pytest
from chain import NOTEBOOKS, ROOT, code_cells


class Strip(ast.NodeTransformer):
    """Drops docstrings and annotations; comments are no part of a syntax tree."""

    def body(self, node: ast.AST) -> ast.AST:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.body(node)

    visit_ClassDef = body

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assigned = node.value or ast.Constant(...)
        return self.visit(ast.Assign([node.target], assigned))


def definition(source: str, name: str) -> str:
    """The syntax tree of ``name`` (``f``, ``C`` or ``C.f``) in a source, without what does not matter."""
    body = ast.parse(source).body
    for part in name.split("."):
        (node,) = (n for n in body if getattr(n, "name", None) == part)
        body = getattr(node, "body", [])
    return ast.dump(Strip().visit(node))


def lessons() -> list[tuple[Path, str, str]]:
    """Notebook, dotted name and source of every cell that begins with a dotted name."""
    found = []
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            if named := re.match(r"# (hybridft_utils(?:\.\w+)+)\n", cell.source):
                found.append((path, named[1], cell.source))
    return found


@pytest.mark.parametrize(
    ("path", "name", "source"), lessons(), ids=lambda value: getattr(value, "stem", str(value).split("\n")[0])
)
def test_lesson_equals_package(path: Path, name: str, source: str) -> None:
    _, room, module, target = name.split(".", 3)
    package = (ROOT / "hybridft_utils" / room / f"{module}.py").read_text()
    assert definition(source, target.rpartition(".")[2]) == definition(package, target)
    assert len(source.splitlines()) <= 60, "a lesson's core is short"


SAMPLE = 'def f(x: int) -> int:\n    """Doc."""\n    y: int = x  # why\n    return y + 1\n'


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("def f(x):\n    y = x\n    return y + 1\n", True),
        ("def f(x):\n    y = x\n    return y + 2\n", False),
        ("def f(x, z=1):\n    y = x\n    return y + 1\n", False),
    ],
)
def test_only_docstrings_comments_and_annotations_may_differ(other: str, same: bool) -> None:
    assert (definition(SAMPLE, "f") == definition(other, "f")) is same
