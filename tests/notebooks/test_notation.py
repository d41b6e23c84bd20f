"""The notation page and the chapters' formulas agree: one symbol, one meaning."""

import re
from pathlib import Path

import pytest
from chain import NOTEBOOKS, ROOT, cells

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PAGE = (ROOT / "book" / "notation.md").read_text()

FORMULA = re.compile(
    r"```\{math\}\n(?::.*\n)*(?P<block>.*?)```|\$\$(?P<display>.*?)\$\$"
    r"|(?<![\\$])\$(?P<inline>[^$\n]+(?:\n[^$\n]+)?)\$",
    re.S,
)
FIRST, LAST = r"(?<![A-Za-z\\{])", r"(?![A-Za-z])"

#: A symbol in a meaning that belongs to another, and the symbol that the page gives to this meaning.
CLASHES = {
    "an expected value": (r"\\operatorname\{E\}|\\mathbf\{E\}\[", r"\mathbb{E}"),
    "the size of the vocabulary": (
        r"\\log V\b|\bV d\b|\bV = \d|\bV\^(?![XP])|V - 1|/V\b",
        r"\lvert\mathcal{V}\rvert",
    ),
    "the truth that a model is compared with": (
        r"H\(p, q\)|D\(p|q\(x \\mid|\\mathbf\{p\} [-=] \\mathbf\{q\}|\\mathbf\{q\} = \(1",
        r"p^\star",
    ),
    "a transition matrix": (FIRST + r"[MQ]_\{?ij", r"\Pi_{ij}"),
    "a count": (r"c_\{ij\}|" + FIRST + r"[cu]\(h|c_w", r"\#(\cdot)"),
    "a sum of exponentials": (FIRST + r"S = \\sum|\}\{S\}|/S\b|\{S\^2\}", "$Z$"),
    "masked positions": (r"\|S\||t \\in S", r"\mathcal{M}"),
    "a position that counts": (r"(?<![A-Za-z\\])m_t", r"\mathbb{1}_t"),
    "an inverse temperature": (r"\\beta = 1|e\^\{\\beta|d\\beta", r"\tau"),
    "momentum": (r"\\mu(?!_)" + LAST, r"\beta$"),
    "Adam's second mean": (r"\\hat\{?\\mathbf\{v\}|\\mathbf\{v\}_\{t", r"\mathbf{m}, \mathbf{s}"),
    "the focal exponent": (r"\^\{?\\gamma", r"\chi"),
    "weight in whole numbers": (r"q_\{?ij", r"\hat W_{ij}"),
    "the largest of several": (r"\\nu_[k\d]", r"\bar{\mathcal{E}}_k"),
    "a candidate's luck": (FIRST + r"Z_[i0]" + LAST, r"\mathcal{E}_i"),
    "texts in a bin": (FIRST + r"S_[b\d]", r"\mathcal{B}_b"),
    "a number of parameters": (
        r"(?<![\d,.])[2346]\\?,? ?P(?![A-Za-z_])" + r"|" + FIRST + r"P ?D\b",
        r"\lvert\theta\rvert",
    ),
    "a standard deviation": (FIRST + r"s\^2|e\^\{s z\}|e\^\{sz\}", r"\varsigma"),
    "the position of a key": (r"\\mathbf\{[kv]\}_s|t - s\b|s\\omega", "$j$"),
    "a step of a difference quotient": (r"[+-] (s|\\epsilon)\\?,? ?(\\mathbf|U)|/ 2s", r"\zeta"),
    "a unit vector": (r"\\mathbf\{e\}_i\b", r"\mathbf{1}_i"),
    "a singular value": (r"\\sigma_|\\boldsymbol\\sigma", r"\varrho_i"),
    "a singular vector": (
        r"\\mathbf\{u\}_[i1] ?\\mathbf\{v\}|U V\^\\top",
        r"\boldsymbol\ell_i, \mathbf{r}_i",
    ),
    "the base of rotary angles": (r"\\theta_\{?\\text\{rope", r"R_\varphi, \omega_i"),
    "label words": (FIRST + r"W_c", r"\mathcal{W}_c"),
    "embeddings of a text": (r"E\(x\)", "$E_x$"),
    "a score of a prefix key": (FIRST + r"u_i\b", "s^P_i"),
    "the width of the prefix's network": (r"n h\b|" + FIRST + r"h\^2", "$d_P$"),
    "the width of an adapter": (r"\ddm\b|\\times m\b|\bm \\times|\br = m\b", "$d_a$"),
    "an adapter": (FIRST + r"a(_\d)?\((?!1)", r"\operatorname{Adapter}("),
    "a slope of ALiBi": (r"m\\?,?\(t", r"\text{slope}"),
}


def formulas(text: str) -> list[str]:
    """Every formula of a Markdown text, white space evened out."""
    found = [next(filter(None, match.groups()), "") for match in FORMULA.finditer(text)]
    return [" ".join(formula.split()) for formula in found]


def of_chapter(path: Path) -> list[str]:
    """The formulas of a chapter's text and captions."""
    texts = [cell.source for cell in cells(path) if cell.cell_type == "markdown"]
    texts += [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "") for cell in cells(path)]
    return [formula for text in texts for formula in formulas(text)]


def clashes(formula: str) -> list[str]:
    """The meanings for which a formula uses another symbol's letter."""
    return [meaning for meaning, (wrong, _) in CLASHES.items() if re.search(wrong, formula)]


@every_notebook
def test_a_symbol_has_the_meaning_of_the_page(path: Path) -> None:
    found = {formula: clashes(formula) for formula in of_chapter(path)}
    assert {formula: meanings for formula, meanings in found.items() if meanings} == {}


@every_notebook
def test_values_stand_beside_their_keys(path: Path) -> None:
    """V alone would be read as the vocabulary: each cell that has it has K too."""
    for cell in cells(path):
        if cell.cell_type == "markdown":
            letters = re.findall(FIRST + "[KV]" + LAST, " ".join(formulas(cell.source)))
            assert "V" not in letters or "K" in letters, f"{cell.id}: {cell.source}"


def rows() -> list[str]:
    """The first column of the page's tables."""
    return [line.split(" | ")[0].strip("| ") for line in PAGE.splitlines() if line.startswith("| $")]


def test_the_page_lists_each_symbol_once_and_each_is_used() -> None:
    symbols = [symbol for row in rows() for symbol in re.split(r", (?![^(]*\))", row.strip("$"))]
    assert len(symbols) == len(set(symbols)) > 60, [s for s in symbols if symbols.count(s) > 1]
    for meaning, (_, right) in CLASHES.items():
        assert right in PAGE or "text" in right, meaning


@pytest.mark.parametrize(
    ("formula", "meaning"),
    [
        (r"H(p, q) = -\sum_i \pi_i", "the truth that a model is compared with"),
        (r"\mathbf{z} \in \mathbb{R}^V, \log V", "the size of the vocabulary"),
        (r"\frac{m_t}{M}", "a position that counts"),
        (r"\Delta W = \sum_i \sigma_i", "a singular value"),
        (r"6 P D", "a number of parameters"),
        (r"4P", "a number of parameters"),
        (r"\mathbf{y} + a(\mathbf{y})", "an adapter"),
        (r"\sum_{w \in W_c} p(w)", "label words"),
    ],
)
def test_a_clash_is_found(formula: str, meaning: str) -> None:
    assert meaning in clashes(formulas(f"See ${formula}$ here.")[0])


@pytest.mark.parametrize(
    "formula", [r"\mathbf{m}_t", r"4 + 4P_k", r"\sigma(z)", r"\mathbf{e}_{x_i}", r"2 n_{kv}"]
)
def test_a_right_formula_passes(formula: str) -> None:
    assert clashes(formula) == []
