"""Set the repository's address everywhere it stands: ``make repo-url URL=https://github.com/you/book``.

One address goes into _config.yml, the bootstrap cell (book/bootstrap.py and every notebook),
CITATION.cff and README.md; an empty one takes it out again.  Colab and Binder need GitHub, so their
buttons are on for such an address only.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = '{colab_url: "https://colab.research.google.com", binderhub_url: "https://mybinder.org"}'


def substitute(path: Path, pattern: str, replacement: str) -> None:
    """Replace the one match of ``pattern`` in a file; anything but one match ends with a sentence."""
    text, count = re.subn(pattern, lambda _: replacement, path.read_text(encoding="utf-8"), flags=re.M)
    if count != 1:
        sys.exit(f"{path.relative_to(ROOT)}: {count} places match {pattern!r}, one was expected.")
    path.write_text(text, encoding="utf-8")


def badges(url: str) -> str:
    """Badges for the README: Colab opens the first chapter, Binder the notebooks."""
    if not url.startswith("https://github.com/"):
        return ""
    name = url.removeprefix("https://github.com/")
    first = min((ROOT / "notebooks").glob("*.ipynb")).name
    colab = f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{first}"
    return (
        f"[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
        f"[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{name}/main?labpath=notebooks)\n"
    )


def main(url: str) -> None:
    url = url.rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"((https|file)://[\w./~:@%+-]+)?", url):
        sys.exit(f"URL: got {url!r}; accepted: an https:// or file:// address, or nothing.")
    launch = LAUNCH if url.startswith("https://github.com/") else "{}"
    substitute(ROOT / "_config.yml", r'^  url: ".*"$', f'  url: "{url}"')
    substitute(ROOT / "_config.yml", r"^launch_buttons: .*$", f"launch_buttons: {launch}")
    substitute(ROOT / "book" / "bootstrap.py", r'^REPOSITORY = ".*"$', f'REPOSITORY = "{url}"')
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        substitute(notebook, r'REPOSITORY = \\"[^"]*\\"', f'REPOSITORY = \\"{url}\\"')
    cited = f'repository-code: "{url}"' if url else "# repository-code:"
    substitute(ROOT / "CITATION.cff", r"^(?:# )?repository-code:.*$", cited)
    substitute(
        ROOT / "README.md",
        r"<!-- badges -->\n(?:\[!.*\n)*<!-- /badges -->",
        f"<!-- badges -->\n{badges(url)}<!-- /badges -->",
    )


if __name__ == "__main__":
    main(sys.argv[1])
