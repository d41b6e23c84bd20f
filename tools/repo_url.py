"""Set the repository's address everywhere it stands: ``make repo-url URL=https://github.com/you/book``.

One address goes into _config.yml, the bootstrap cell (book/bootstrap.py and every notebook),
CITATION.cff and README.md; an empty one takes it out again.  Colab and Binder need GitHub, so their
buttons are on for such an address only.  Either every file is changed or none.
"""

import re
import sys
from contextlib import ExitStack
from pathlib import Path

from hybridft_utils.errors import InputError
from hybridft_utils.files import replacing

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = '{colab_url: "https://colab.research.google.com", binderhub_url: "https://mybinder.org"}'
GITHUB = "https://github.com/"
ACCEPTED = f"{GITHUB}OWNER/REPOSITORY, another https:// or file:// address of a repository, or nothing"


def checked(url: str) -> str:
    """The address without a slash or .git at its end; refused where no repository can be."""
    short = url.rstrip("/").removesuffix(".git")
    if re.match(r"https://(www\.)?github\.com\b", short, re.I):
        accepted = re.fullmatch(rf"{GITHUB}[\w-]+/(?!\.+$)[\w.-]+", short, re.A)
    else:
        accepted = re.fullmatch(r"(https://[\w.-][\w./~:@%+-]*|file:///[\w./~:@%+-]+)?", short)
        page = re.search(r"/(-|blob|tree)/", f"{short}/")  # pages of a forge, such as .../tree/main
        accepted = None if page else accepted
    if accepted is None:
        raise InputError("URL", url, ACCEPTED)
    return short


def badges(url: str) -> str:
    """Badges for the README: Colab opens the first chapter, Binder the notebooks."""
    if not url.startswith(GITHUB):
        return ""
    name = url.removeprefix(GITHUB)
    first = min((ROOT / "notebooks").glob("*.ipynb")).name
    colab = f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{first}"
    return (
        f"[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
        f"[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{name}/main?labpath=notebooks)\n"
    )


def substitutions(url: str) -> list[tuple[Path, str, str]]:
    """File, pattern and replacement for every place where the address stands."""
    launch = LAUNCH if url.startswith(GITHUB) else "{}"
    cited = f'repository-code: "{url}"' if url else "# repository-code:"
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return [
        (ROOT / "_config.yml", r'^  url: ".*"$', f'  url: "{url}"'),
        (ROOT / "_config.yml", r"^launch_buttons: .*$", f"launch_buttons: {launch}"),
        (ROOT / "book" / "bootstrap.py", r'^REPOSITORY = ".*"$', f'REPOSITORY = "{url}"'),
        *((n, r'REPOSITORY = \\"[^"]*\\"', f'REPOSITORY = \\"{url}\\"') for n in notebooks),
        (ROOT / "CITATION.cff", r"^(?:# )?repository-code:.*$", cited),
        (
            ROOT / "README.md",
            r"<!-- badges -->\n(?:\[!.*\n)*<!-- /badges -->",
            f"<!-- badges -->\n{badges(url)}<!-- /badges -->",
        ),
    ]


def new_contents(url: str) -> dict[Path, str]:
    """Every changed file's text; a file that does not hold its place exactly once is refused."""
    texts: dict[Path, str] = {}
    for path, pattern, replacement in substitutions(url):
        before = texts[path] if path in texts else path.read_bytes().decode()
        texts[path], count = re.subn(pattern, lambda _, new=replacement: new, before, flags=re.M)
        if count != 1:
            raise InputError(str(path.relative_to(ROOT)), f"{count} matches of {pattern}", "exactly one")
    return texts


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise InputError("arguments", arguments, "one address")
    contents = new_contents(checked(arguments[0]))
    with ExitStack() as stack:  # no file is replaced before the last one is written
        for path, text in contents.items():
            stack.enter_context(replacing(path)).write_bytes(text.encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (InputError, OSError, UnicodeDecodeError) as error:
        sys.exit(str(error))
