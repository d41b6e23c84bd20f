"""Run notebook 10 by papermill with every combination of a grid of settings, side by side.

Each run has a folder of its own with its notebook, tunings and results; a sweep that was stopped goes on with
those that are missing.  ``tools/sweep.py`` is the command.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..errors import InputError
from .config import RunConfig
from .results import RunResult

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_sentiment_run.ipynb"
RESULTS, SETTINGS = "results.json", "settings.json"


def sweep(
    grid: Mapping[str, Sequence[Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    output_dir: str | Path = "runs/sweep",
    jobs: int = 1,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """A row for each method of each run: the grid's values, then :meth:`RunResult.table`'s columns.

    ``grid`` maps fields of :class:`RunConfig` to the values to try, ``settings`` fixes others.  ``jobs``
    runs go on side by side and share this machine's cores; ``executor`` is another place to run them,
    such as a Dask cluster's ``Client(address).get_executor()`` that sees the same folders.

    All combinations are checked before the first one runs.  A run that fails does not stop the others;
    :class:`InputError` names the failed ones at the end.
    """
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InputError("grid", f"{name}: {values!r}", "a list with at least one value for each name")
    folder = Path(output_dir).resolve()
    runs: dict[Path, dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        place = folder / f"{len(runs):03d}"
        runs[place] = {**(settings or {}), **chosen, "output_dir": str(place)}
        RunConfig(**runs[place])
    missing = [place for place, given in runs.items() if not is_done(place, given)]
    own = ProcessPoolExecutor(jobs, get_context("spawn")) if executor is None else None
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed = {}
    try:
        futures = {(executor or own).submit(run_one, p, runs[p], os.getcwd(), threads): p for p in missing}  # type: ignore[union-attr]
        for future in tqdm(as_completed(futures), "runs", len(futures)):
            if sentence := future.result():
                failed[futures[future].name] = sentence
    finally:
        if own is not None:
            own.shutdown(cancel_futures=True)
    if failed:
        first = next(iter(failed))
        raise InputError(
            "grid", f"runs {', '.join(failed)} failed", f"settings that run; {first}: {failed[first]}"
        )
    tables = []
    for place, given in runs.items():
        table = RunResult.load(place / RESULTS).table().reset_index()
        for position, name in enumerate(grid):
            table.insert(position, name, [given[name]] * len(table))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def is_done(place: Path, given: dict[str, Any]) -> bool:
    """Whether ``place`` holds the results of exactly these settings."""
    kept = place / SETTINGS
    return (place / RESULTS).is_file() and kept.is_file() and json.loads(kept.read_text()) == given


def run_one(place: Path, given: dict[str, Any], cwd: str, threads: int) -> str:
    """One papermill run in ``place``; "" or, where it failed, the sentence it ended with."""
    import papermill

    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the kernel that papermill starts
    place.mkdir(parents=True, exist_ok=True)
    (place / RESULTS).unlink(missing_ok=True)
    (place / SETTINGS).write_text(json.dumps(given))
    try:
        papermill.execute_notebook(
            NOTEBOOK, place / "out.ipynb", given, cwd=cwd, progress_bar=False, kernel_name="python3"
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    return ""
