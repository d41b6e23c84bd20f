"""Run copies of all notebooks, some side by side: ``python tools/run_chain.py FOLDER [JOBS]`` (``make book``).

FOLDER becomes the source folder of a book whose notebooks hold what was just run.
"""

import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import papermill

ROOT = Path(__file__).resolve().parents[1]


def run_notebook(notebook: Path, copy: Path, work: Path, threads: int) -> tuple[float, str]:
    """The seconds a notebook took, and "" or the sentence it stopped with."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    work.mkdir(parents=True)  # what the notebook writes lies here
    start, problem = time.perf_counter(), ""
    try:
        papermill.execute_notebook(notebook, copy, cwd=work, kernel_name="python3", progress_bar=False)
    except papermill.PapermillExecutionError as error:
        problem = f"stopped in cell [{error.exec_count}]: {error.ename}: {error.evalue}"
    return time.perf_counter() - start, problem


def main(target: Path, jobs: int) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "book", target / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, target)
    (target / "notebooks").mkdir()
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"), reverse=True)  # the longest stand at the end
    threads = max(1, (os.cpu_count() or 1) // jobs)
    print(f"running {len(notebooks)} notebooks, {jobs} side by side", flush=True)
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {
            pool.submit(run_notebook, n, target / "notebooks" / n.name, target / "work" / n.stem, threads): n
            for n in notebooks
        }
        for number, future in enumerate(as_completed(futures), 1):
            seconds, problem = future.result()
            name = futures[future].stem
            if problem:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"{name} {problem}")
            print(f"[{number}/{len(notebooks)}] {name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
