"""Every link of the rendered book leads somewhere; external addresses are only read, not fetched."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}


class Links(HTMLParser):
    """Collects a page's links and the anchors it offers."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        if (link := given.get(LINKS.get(tag, ""))) is not None:
            self.links.append(link)


@cache
def parse(page: Path) -> Links:
    return Links(page.read_text(encoding="utf-8"))


def broken(page: Path, site: Path) -> list[str]:
    """Links of one page that lead nowhere, each with the reason."""
    problems = []
    for link in parse(page).links:
        parts = urlsplit(link)
        if parts.scheme in ("http", "https"):
            if "." not in parts.netloc or " " in link:
                problems.append(f"{link}: not an address")
        elif parts.scheme not in ("mailto", "data", "javascript"):
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file() or not target.is_relative_to(site):
                problems.append(f"{link}: no such file in the book")
            elif target.suffix == ".html" and unquote(parts.fragment) not in parse(target).anchors:
                problems.append(f"{link}: no such anchor")
    return problems


def test_links_lead_somewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    problems = {str(page.relative_to(site)): broken(page, site) for page in pages}
    assert problems
    assert {page: found for page, found in problems.items() if found} == {}


@pytest.mark.parametrize("link", ["no.html", "#no", "there.html#no", "../out.html", "http://nowhere"])
def test_a_broken_link_is_found(tmp_path: Path, link: str) -> None:
    (tmp_path / "out.html").write_text("")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "there.html").write_text('<p id="yes">')
    page = folder / "page.html"
    page.write_text(f'<a href="{link}"></a><a href="there.html#yes"></a><a href="https://a.org/b"></a>')
    assert len(broken(page, folder)) == 1
