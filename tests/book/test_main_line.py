"""The main line of a chapter, as a reader scrolls through it, is at most sixteen screens."""

from pathlib import Path

import pytest
import yaml
from chromium import Chromium, find_chromium
from repository import ROOT

SCREENS, HEIGHT, WIDTH = 16, 900, 1440


def chapters() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [
        c["file"] for part in toc["parts"] for c in part["chapters"] if c["file"].startswith("notebooks/")
    ]


@pytest.fixture(scope="module")
def browser():
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium or Chrome was found")
    with Chromium(program) as opened:
        yield opened


@pytest.mark.parametrize("name", chapters())
def test_main_line_is_short(browser: Chromium, site: Path, name: str) -> None:
    page = browser.open((site / f"{name}.html").as_uri(), width=WIDTH, height=HEIGHT)
    page.wait_for("window.MathJax?.startup?.promise && true")
    page.evaluate("MathJax.startup.promise.then(() => true)")
    page.evaluate("[...document.images].forEach(i => i.loading = 'eager')")
    page.wait_for("[...document.images].every(i => i.complete)")
    top = page.evaluate(
        "[...document.querySelectorAll('h2')].filter(h => h.firstChild.textContent.trim() == 'Deeper')"
        ".map(h => h.getBoundingClientRect().top + scrollY)"
    )
    assert len(top) == 1
    assert top[0] <= SCREENS * HEIGHT, f"{top[0] / HEIGHT:.1f} screens"
