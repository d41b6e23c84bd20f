"""The table of contents, the landing page and the reference pages are complete."""

import re
from pathlib import Path

import yaml
from pybtex.database import parse_file


def test_contents_list_the_notebooks_in_order(root: Path) -> None:
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    notebooks = [f"notebooks/{path.stem}" for path in sorted((root / "notebooks").glob("*.ipynb"))]
    assert [file for file in files if file.startswith("notebooks/")] == notebooks
    pages = {f"book/{path.stem}" for path in (root / "book").iterdir() if path.suffix in (".md", ".ipynb")}
    assert {toc["root"], *files} - set(notebooks) == pages


def test_landing_page_links_every_chapter_once(root: Path) -> None:
    links = re.findall(r"\(\.\./notebooks/(.*?)\.ipynb\)", (root / "book" / "index.md").read_text())
    assert links == [path.stem for path in sorted((root / "notebooks").glob("*.ipynb"))]


def test_every_glossary_entry_has_an_english_and_a_chinese_term(root: Path) -> None:
    text = (root / "book" / "glossary.md").read_text()
    body = re.search(r"```\{glossary\}\n(.*?)```", text, re.S)[1]
    entries = [re.findall(r"^\S.*$", entry, re.M) for entry in body.split("\n\n")]
    assert len(entries) >= 45
    for terms in entries:
        assert len(terms) >= 2, terms
        assert re.search("[\u4e00-\u9fff]", terms[-1]) and not re.search("[\u4e00-\u9fff]", terms[0]), terms
    english = [re.sub("[^a-z ]", "", terms[0].lower()) for terms in entries]
    assert english == sorted(english)


def test_references_are_complete(root: Path) -> None:
    for key, entry in parse_file(root / "book" / "references.bib").entries.items():
        assert entry.persons.get("author"), key
        assert entry.fields.get("title") and re.fullmatch(r"\d{4}", entry.fields["year"]), key
        venue = {"journal", "booktitle", "institution", "publisher", "url"} & set(entry.fields.keys())
        assert venue, f"{key} says nothing about where it appeared"
