"""Run copies of all notebooks, in order: ``python tools/run_chain.py FOLDER`` (``make book``).

FOLDER becomes the source folder of a book whose notebooks hold what was just run.
"""

import shutil
import sys
import time
from pathlib import Path

import papermill

ROOT = Path(__file__).resolve().parents[1]


def main(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "book", target / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, target)
    (target / "notebooks").mkdir()
    work = target / "work"  # what a notebook writes lies here
    work.mkdir()
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for number, notebook in enumerate(notebooks, 1):
        print(f"[{number}/{len(notebooks)}] {notebook.stem}", flush=True)
        start = time.perf_counter()
        try:
            papermill.execute_notebook(
                notebook,
                target / "notebooks" / notebook.name,
                cwd=work,
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
            )
        except papermill.PapermillExecutionError as error:
            sys.exit(f"{notebook.name} stopped in cell [{error.exec_count}]: {error.ename}: {error.evalue}")
        print(f"      {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
