"""Every chapter has a main line of short shown cells, and what is optional comes after it."""

import builtins
import re
import symtable
from pathlib import Path

import pytest
from chain import NOTEBOOKS, cells, code_cells, tags, text

from hybridft_utils.exercises.grade import GRADERS

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
HIDDEN = {"hide-input", "remove-input", "hide-cell", "remove-cell"}


def hidden(cell) -> bool:
    return bool(HIDDEN & set(tags(cell)))


@every_notebook
def test_a_shown_cell_is_short_and_every_line_fits(path: Path) -> None:
    for number, cell in enumerate(code_cells(path)):
        lines = cell.source.splitlines()
        assert [line for line in lines if len(line) > 88 and number] == [], f"{cell.id}: over 88 characters"
        if not hidden(cell):
            assert len(lines) <= 40, f"{cell.id}: {len(lines)} lines"


@every_notebook
def test_only_what_draws_or_prepares_is_hidden(path: Path) -> None:
    _, given, imports, *lesson = code_cells(path)
    assert not hidden(given), "the parameters stay in sight"
    assert "hide-input" in tags(imports)
    for cell in lesson:
        if any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {})):
            assert hidden(cell), f"{cell.id} draws"


def main_line(path: Path) -> list:
    """The cells in front of ``## Deeper``."""
    (end,) = (i for i, cell in enumerate(cells(path)) if re.search("^## Deeper$", cell.source, re.M))
    return cells(path)[:end]


@every_notebook
def test_deeper_is_the_last_section(path: Path) -> None:
    headings = re.findall(r"^(#{1,2} .*)$", re.sub(r"^(```+).*?^\1", "", text(path), flags=re.M | re.S), re.M)
    assert headings.count("## Deeper") == 1 and headings[-1] == "## Deeper", headings
    assert "## Exercises" in headings
    assert main_line(path)


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell defines at its top level, and the global names that it uses anywhere."""
    top = symtable.symtable(source, "cell", "exec")
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used, tables = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, top.get_children()
    for table in tables:
        used |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
        tables.extend(table.get_children())
    return defined, used - set(dir(builtins))


def later_names(sources: list[str], later: list[str]) -> set[str]:
    """What the first cells use and only the later ones define."""
    pairs = [names(source) for source in sources]
    defined = {name for cell, _ in pairs for name in cell}
    used = {name for _, cell in pairs for name in cell}
    return (used - defined) & {name for source in later for name in names(source)[0]}


@every_notebook
def test_the_main_line_needs_nothing_deeper(path: Path) -> None:
    count = len(main_line(path))
    first, rest = cells(path)[:count], cells(path)[count:]
    code = [[cell.source for cell in part if cell.cell_type == "code"] for part in (first, rest)]
    assert later_names(*code) == set()


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("def f(x):\n    return g(x)\n", "g = abs"),
        ("y = [g(x) for x in range(3)]", "def g(x): return x"),
        ("class C:\n    def f(self):\n        return lambda: g", "import g"),
    ],
)
def test_a_name_from_deeper_is_found(first: str, later: str) -> None:
    assert later_names([first], [later]) == {"g"}
    assert later_names([first, "g = 1"], [later]) == set()


QUESTION = re.compile(
    r"^:::\{admonition\} Before you run\n(.+?)\n:::\n+"
    r":::\{admonition\} Answer\n:class: dropdown\n(.+?)\n:::$",
    re.M | re.S,
)


@every_notebook
def test_the_reader_predicts_three_times(path: Path) -> None:
    asked = text(path).count("{admonition} Before you run")
    assert len(QUESTION.findall(text(path))) == asked, "a question has its folded answer right after it"
    assert asked >= 3


@every_notebook
def test_stubs_stand_in_exercises_and_solutions_pass_their_grader(path: Path) -> None:
    place, stubs, solved = "", [], []
    for cell in cells(path):
        for kind, edge in re.findall(r"\{(exercise|solution)-(start|end)\}", cell.source):
            place = kind if edge == "start" else ""
        graded = re.findall(r'check_mine\(\s*"([^"]+)"', cell.source) if cell.cell_type == "code" else []
        assert set(graded) <= set(GRADERS), cell.id
        assert ("exercise-stub" in tags(cell)) == (place == "exercise" and cell.cell_type == "code"), cell.id
        if "exercise-stub" in tags(cell):
            assert len(graded) == 1 and "not yet" in str(cell.outputs), f"{cell.id}: the stub is graded"
            stubs += graded
        if place == "solution" and re.search(r"^assert check_mine\(", cell.source, re.M):
            solved += graded
    assert sorted(stubs) == sorted(solved)
    assert stubs


#: Helpers that the chapters' own definitions call; a reader has seen each of them written out.
SHOWN_ONCE = {
    "pad": "# hybridft_utils.classifiers.classifier.Classifier.pad",
    "encode_all": "# hybridft_utils.classifiers.prompt_classifier.PromptClassifier.encode_all",
    "attach": ".set_submodule(name, LoRALinear(",
}


@pytest.mark.parametrize("helper", SHOWN_ONCE)
def test_a_helper_that_the_lessons_use_is_shown_once(helper: str) -> None:
    used = [p.stem for p in NOTEBOOKS for c in code_cells(p) if re.search(rf"\b{helper}\(", c.source)]
    shown = [
        p.stem for p in NOTEBOOKS for c in code_cells(p) if SHOWN_ONCE[helper] in c.source and not hidden(c)
    ]
    assert used and len(shown) == 1, f"{helper} is shown in {shown}"
