"""Every promise of the book's page names a test that exists."""

import ast
import re
from pathlib import Path

import pytest
from repository import ROOT

PAGE = (ROOT / "book" / "promises.md").read_text()
#: The rows of all tables but their headings.
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("|") and line not in ("| Promise | Test |", "|---|---|")
]
NAMED = re.compile(r"\| [A-Z`].*\. \| `(tests/[\w/]+\.py)::(test_\w+)` \|")


@pytest.mark.parametrize("row", ROWS)
def test_a_promise_names_a_test_that_exists(root: Path, row: str) -> None:
    named = NAMED.fullmatch(row)
    assert named, "not one promise and one test"
    tree = ast.parse((root / named[1]).read_text())
    assert named[2] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_no_test_is_named_twice() -> None:
    assert len({row.split(" | ")[1] for row in ROWS}) == len(ROWS) >= 80
    assert PAGE.count("| Promise | Test |") == PAGE.count("\n## ")
