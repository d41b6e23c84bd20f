"""Run copies of all notebooks, some side by side: ``python tools/run_chain.py FOLDER [JOBS]`` (``make book``).

FOLDER becomes the source folder of a book whose notebooks hold what was just run.  What it held before is
removed, so a folder that this command did not make is refused.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("book", "notebooks")
#: Stands in every folder that this command made, and in no other.
MARKER = ".made-by-run-chain"
LAST_LINES = 15


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(f"arguments: got {arguments}; accepted: FOLDER [JOBS].")
    target, jobs = Path(arguments[0]).resolve(), arguments[1] if len(arguments) == 2 else "1"
    if not re.fullmatch(r"[1-9]\d{0,3}", jobs):
        sys.exit(f"JOBS: got {jobs!r}; accepted: a whole number from 1 to 9999.")
    try:
        make_empty(target)
        copy_sources(target)
    except OSError as error:
        sys.exit(f"FOLDER: got {str(target)!r}; accepted: a folder that can be written to ({error}).")
    run_all(target, int(jobs))


def make_empty(target: Path) -> None:
    """Make ``target``, or remove what an earlier run left in it; the marker stays throughout."""
    inside = any(target.is_relative_to(ROOT / name) for name in SOURCES)
    if inside or (os.path.lexists(target) and not (target / MARKER).is_file()):
        sys.exit(
            f"FOLDER: got {str(target)!r}; accepted: a folder outside {' and '.join(SOURCES)} that is "
            "not there yet, or that this command made (remove it yourself if it may go)."
        )
    target.mkdir(parents=True, exist_ok=True)
    (target / MARKER).write_text("tools/run_chain.py removes everything beside this file.\n")
    for path in target.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()


def copy_sources(target: Path) -> None:
    """What the book needs beside its notebooks."""
    shutil.copytree(ROOT / "book", target / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, target)
    for name in ("notebooks", "log"):
        (target / name).mkdir()


def run_all(target: Path, jobs: int) -> None:
    """Run every notebook; the first that stops ends the command with its sentence and its log."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"), reverse=True)  # the longest stand at the end
    threads = max(1, (os.cpu_count() or 1) // jobs)
    print(f"Running {len(notebooks)} notebooks, {jobs} side by side: about 40 s each.", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run_notebook, n, target, threads): n.stem for n in notebooks}
        for number, future in enumerate(as_completed(futures), 1):
            seconds, problem = future.result()
            name = futures[future]
            if problem:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"{name} stopped:\n{problem}\nThe whole log: {target / 'log' / name}.log")
            print(f"[{number}/{len(notebooks)}] {name}: {seconds:.0f} s", flush=True)


def run_notebook(notebook: Path, target: Path, threads: int) -> tuple[float, str]:
    """The seconds a notebook took in a process of its own, and "" or the last lines of its log."""
    work, log = target / "work" / notebook.stem, target / "log" / f"{notebook.stem}.log"
    work.mkdir(parents=True)  # what the notebook writes lies here
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--kernel", "python3", "--cwd", work]
    start = time.perf_counter()
    with log.open("wb") as file:
        done = subprocess.run(
            [*command, notebook, target / "notebooks" / notebook.name],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
    problem = ""
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        problem = "\n".join(lines[-LAST_LINES:]) or f"exit code {done.returncode}"
    return time.perf_counter() - start, problem


if __name__ == "__main__":
    main(sys.argv[1:])
