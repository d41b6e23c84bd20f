"""The rendered book in a real browser, from files and without the network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chromium import Chromium, Page, find_chromium
from repository import ROOT

#: The theme says this as an error when it is opened for the first time.
EXPECTED = "Got invalid theme mode"


def pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"]] + [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium or Chrome was found")
    with Chromium(program) as opened:
        yield opened


def complaints(page: Page) -> list[str]:
    """What the page tried to fetch from elsewhere, and its errors."""
    outside = [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))]
    return outside + [error for error in page.errors if EXPECTED not in error]


def check(page: Page) -> None:
    """Typeset maths, shown pictures, nothing wider than a desktop's or a phone's window, no complaint."""
    if page.evaluate("document.querySelectorAll('.math').length"):
        page.wait_for("window.MathJax?.startup?.promise && true")
        page.evaluate("MathJax.startup.promise.then(() => true)")
    raw = "[...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container svg'))"
    assert page.evaluate(f"{raw}.map(m => m.textContent)") == []
    # MathJax draws an unknown command in red and goes on.
    wrong = "[...document.querySelectorAll('mjx-container :is([data-mml-node=merror], [fill=red])')]"
    assert page.evaluate(f"{wrong}.map(e => e.closest('.math')?.outerHTML.slice(0, 200))") == []
    page.evaluate("[...document.images].forEach(i => i.loading = 'eager')")
    page.wait_for("[...document.images].every(i => i.complete)")
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)") == []
    for width in (1400, 390):
        page.resize(width)
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, width
    assert complaints(page) == []


@pytest.mark.parametrize("name", pages())
def test_page(browser: Chromium, site: Path, name: str) -> None:
    page = browser.open((site / f"{name}.html").as_uri())
    check(page)
    exercises = page.evaluate("document.querySelectorAll('div.exercise').length")
    solutions = page.evaluate(
        "[...document.querySelectorAll('div.solution')]"
        ".map(s => s.querySelectorAll('.cell_input pre').length && s.classList.contains('dropdown'))"
    )
    assert len(solutions) == exercises
    assert all(solutions), "a solution is not a drop-down that holds code"


def test_search_finds_a_term(browser: Chromium, site: Path) -> None:
    page = browser.open((site / "search.html").as_uri() + "?q=softmax")
    found = page.wait_for("[...document.querySelectorAll('#search-results li a')].map(a => a.href).join(' ')")
    assert "glossary.html#term-softmax" in found
    # From files the browser lets it list pages, but not fetch their summaries.
    assert [url for url in page.requests if not url.startswith("file:")] == []


@pytest.mark.parametrize(
    "body",
    [
        r'<span class="math">\(\nonsense\)</span>',
        '<img src="none.png">',
        "<script>throw new Error('broken')</script>",
        '<script src="https://example.org/a.js"></script>',
        '<div style="width: 5000px">wide</div>',
    ],
)
def test_a_broken_page_is_found(browser: Chromium, site: Path, tmp_path: Path, body: str) -> None:
    mathjax = (site / "_static" / "mathjax" / "tex-svg-full.js").as_uri()
    path = tmp_path / "broken.html"
    path.write_text(f'<!doctype html><script src="{mathjax}"></script>{body}')
    with pytest.raises(AssertionError):
        check(browser.open(path.as_uri()))
