"""The package's rooms: no circle of imports, no long file, and a docstring at each door."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hybridft_utils

PACKAGE = Path(hybridft_utils.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """The dotted name of a file, ``hybridft_utils.methods.lora``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, name: str, package: bool = False) -> set[str]:
    """What a module imports, also inside functions, as dotted names; only types are left out."""
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = name.split(".")
            start = start[: len(start) - node.level + package] if node.level else []
            base = ".".join(start + ([node.module] if node.module else []))
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def graph(room: bool) -> dict[str, set[str]]:
    """Who imports whom: modules, or the rooms that they are in."""
    modules = {module(path) for path in FILES}
    edges: dict[str, set[str]] = {}
    for path in FILES:
        name = module(path)
        if name == "hybridft_utils":
            continue  # the front door names what is public; no one inside goes through it
        found = imported(path.read_text(), name, path.name == "__init__.py") & modules
        place = (lambda dotted: ".".join(dotted.split(".")[:2])) if room else str
        edges.setdefault(place(name), set()).update(place(other) for other in found)
    return {name: others - {name, "hybridft_utils"} for name, others in edges.items()}


@pytest.mark.parametrize("room", [True, False], ids=["rooms", "modules"])
def test_nothing_imports_in_a_circle(room: bool) -> None:
    edges = graph(room)
    assert len(edges) > 5
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_no_file_is_long() -> None:
    lengths = {module(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_every_room_says_what_belongs_in_it() -> None:
    doors = [path / "__init__.py" for path in PACKAGE.iterdir() if list(path.glob("*.py"))]
    assert len(doors) >= 7
    for door in doors:
        said = ast.get_docstring(ast.parse(door.read_text()))
        assert said and len(said) > 80, door


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from . import b", "p.a.b"),
        ("from ..b import c", "p.b"),
        ("def f():\n    import p.b", "p.b"),
        ("from ..b.c import d as e", "p.b.c"),
    ],
)
def test_an_import_is_seen_wherever_it_stands(source: str, found: str) -> None:
    assert found in imported(source, "p.a.m")
