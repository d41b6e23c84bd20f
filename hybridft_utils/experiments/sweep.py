"""Run notebook 10 by papermill with every combination of a grid of settings, side by side.

Each run has a folder of its own with its notebook, tunings and results; a sweep that was stopped goes on with
the runs that are missing.  ``tools/sweep.py`` is the command.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..errors import InputError
from ..evidence.provenance import base_fingerprint
from ..files import exclusive
from ..models.loading import load_base
from .cluster import cluster, jobs_or_address
from .config import RunConfig
from .results import RunResult
from .run_folder import run_key

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_sentiment_run.ipynb"
RESULTS = "results.json"


def sweep(
    grid: Mapping[str, Sequence[Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    output_dir: str | Path = "runs/sweep",
    jobs: int | str = 1,
) -> pd.DataFrame:
    """A row per method of each run: the grid's values, then :meth:`RunResult.table`'s columns.

    ``grid`` maps fields of :class:`RunConfig` to the values to try, ``settings`` fixes others.  ``jobs``
    runs go on side by side and share this machine's cores; the address of a Dask scheduler, such as
    "tcp://host:8786", gives them to its workers, which see the same folders.

    All combinations are checked before the first one runs.  Results count as done for the same settings, data
    and base model.  A run that fails, even by a killed process, does not stop the others; :class:`InputError`
    names the failed ones at the end.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise InputError("grid", grid, "a mapping with at least one name, each with a list of values")
    if not isinstance(settings or {}, Mapping):
        raise InputError("settings", settings, "a mapping of names to values")
    jobs = jobs_or_address("jobs", jobs)
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
    with exclusive(folder, "output_dir"):
        missing = [place for place, given in runs.items() if not is_done(place, given)]
        failed = run_all({place: runs[place] for place in missing}, jobs)
    if failed:
        first = next(iter(failed))
        named = f"runs {', '.join(failed)} failed"
        raise InputError("grid", named, f"settings that run; {first}: {failed[first]}")
    tables = []
    for place, given in runs.items():
        table = RunResult.load(place / RESULTS).table().reset_index()
        for position, name in enumerate(grid):
            table.insert(position, name, [given[name]] * len(table))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def is_done(place: Path, given: dict[str, Any]) -> bool:
    """Whether ``place`` holds undamaged results of exactly these settings, data and base model."""
    if not (place / RESULTS).is_file():
        return False
    try:
        kept = RunResult.load(place / RESULTS)
    except InputError:
        return False
    config = RunConfig(**given)
    key = run_key(config, config.load_data(), base_fingerprint(*load_base(config.model)))
    return kept.provenance.get("key") == key


def run_all(runs: Mapping[Path, dict[str, Any]], jobs: int | str) -> dict[str, str]:
    """Run papermill for each of ``runs``; returns the sentence of each failure by the name of its run."""
    threads = max(1, (os.cpu_count() or 1) // jobs) if isinstance(jobs, int) else 1
    failed = {}
    with ThreadPoolExecutor(jobs) if isinstance(jobs, int) else cluster(jobs) as pool:
        futures = {pool.submit(run_one, p, given, os.getcwd(), threads): p for p, given in runs.items()}
        for future in tqdm(as_completed(futures), "runs", len(futures)):
            error = future.exception()  # a worker of a cluster that is gone, say
            if sentence := future.result() if error is None else f"{type(error).__name__}: {error}":
                failed[futures[future].name] = sentence
    return dict(sorted(failed.items()))


def run_one(place: Path, given: dict[str, Any], cwd: str, threads: int) -> str:
    """Run papermill in ``place``, in a process of its own; returns "", or the sentence of a failure."""
    (place / RESULTS).unlink(missing_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--kernel", "python3"]
    command += ["--cwd", cwd, "-y", json.dumps(given), str(NOTEBOOK), str(place / "out.ipynb")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment
    )
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines and done.returncode > 0 else f"the process ended with code {done.returncode}"
