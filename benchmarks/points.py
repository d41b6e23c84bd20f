"""Run the points of a study, on several processes, going on where a killed run stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from tqdm import tqdm
from typing_extensions import TypedDict

from hybridft_utils import InputError, RunConfig, load_base, load_reviews
from hybridft_utils.evidence.provenance import base_fingerprint, portable, provenance
from hybridft_utils.experiments.cluster import cluster
from hybridft_utils.experiments.results import RESULTS
from hybridft_utils.experiments.run_folder import run_key
from hybridft_utils.experiments.studies import Point, measure
from hybridft_utils.files import exclusive, write_json, write_text

SEEDS = range(5)
#: What every study trains on and every reader can have; SST-2 stays for the runs of ``studies.RUNS``.
MOVIES = "package:vader-movies"
#: bfloat16 takes four fifths of the time where the processor has it.  Points that name a data set of their own,
#: such as the book's reviews, which the chapters run again, stay in float32.
SHARED: dict[str, Any] = {"precision": "bf16"}
#: Few texts make few steps, so they are read more often; a reader who has few has few to choose on.
FEW: dict[str, Any] = {"train_size": 100, "validation_size": 100, "epochs": 10}


class Row(TypedDict):
    """What every row has; studies add more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    point: str
    seed: int


class Entry(TypedDict):
    """A line of a study's file."""

    key: str
    row: Row


ENTRY = TypeAdapter(Entry)


def run_points(
    name: str,
    points: Mapping[str, Point],
    dataset: str,
    jobs: int | str = 1,
    seeds: range | list[int] = SEEDS,
    questions: Sequence[str] = (),
) -> None:
    """Measure every point with every seed and write ``benchmarks/results/study-NAME.json``.

    A point trains on ``dataset`` unless its settings name another; one that trains nothing is measured once,
    with the first seed.  The file holds the ``questions`` as they were stated before.  Finished rows are kept in
    ``runs/studies/NAME.jsonl``; rows of a point whose settings, data or base model have changed since, and lines that a kill has
    cut, are measured again.  ``jobs`` is a number of processes or the address of a Dask scheduler, whose workers
    are started in this folder and see it.  A training that fails, even by a killed process, does not stop the others;
    :class:`InputError` names the failed ones at the end.
    """
    placed = {
        label: replace(p, settings={"dataset": dataset, **SHARED, **p.settings})
        if "dataset" not in p.settings
        else p
        for label, p in points.items()
    }
    load_reviews(dataset)  # a folder that is not there ends here, not in every process
    key = {label: point_key(p) for label, p in placed.items()}
    folder = Path("runs/studies")
    place = Processes(jobs) if isinstance(jobs, int) else cluster(jobs)
    with exclusive(folder / name, "names"), place as workers:
        kept = Kept(folder / f"{name}.jsonl")
        found = {(e["row"]["point"], e["row"]["seed"]) for e in kept.of(key)}
        tasks = [
            (label, seed)
            for seed in seeds
            for label, point in placed.items()
            if (label, seed) not in found and (point.trains or seed == seeds[0])
        ]
        futures = {workers.submit(measure, placed[label], seed): (label, seed) for label, seed in tasks}
        failed = []
        for future in tqdm(as_completed(futures), name, len(futures)):
            label, seed = futures[future]
            if error := future.exception():
                failed.append(f"{label}, seed {seed}: {type(error).__name__}: {error}")
            else:
                kept.add({"key": key[label], "row": {"point": label, **future.result()}})
    if failed:
        given = f"{len(failed)} of {len(tasks)} trainings of {name} failed"
        raise InputError("names", given, f"points that train; the others are kept; {failed[0]}")
    rows = [e["row"] for e in kept.of(key)]
    order = list(placed)
    rows.sort(key=lambda row: (order.index(row["point"]), row["seed"]))
    write_json(
        RESULTS / f"study-{name}.json",
        {
            "name": name,
            "points": {label: portable_point(p.describe()) for label, p in placed.items()},
            "rows": rows,
            "provenance": {
                **provenance(),
                "command": f"make studies NAMES={name}",
                **({"questions": list(questions)} if questions else {}),
            },
        },
    )


class Processes(ThreadPoolExecutor):
    """A process of one thread for each of ``jobs``; one that is killed is replaced and takes no other with it."""

    def __init__(self, jobs: int):
        super().__init__(jobs)
        self.idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(jobs):
            self.idle.put(one_process())

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future:
        return super().submit(self.in_process, function, *arguments, **named)

    def in_process(self, function: Any, *arguments: Any, **named: Any) -> Any:
        process = self.idle.get()
        try:
            return process.submit(function, *arguments, **named).result()
        except BrokenProcessPool:
            process = one_process()
            raise
        finally:
            self.idle.put(process)

    def shutdown(self, *arguments: Any, **options: Any) -> None:
        super().shutdown(*arguments, **options)
        while not self.idle.empty():
            self.idle.get().shutdown()


def one_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))


class Kept:
    """The rows in a file of JSON lines, each with the settings that it was measured with."""

    def __init__(self, path: Path):
        self.path, self.entries = path, []
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                self.entries.append(ENTRY.validate_json(line))
            except ValidationError:  # cut by a kill
                continue

    def of(self, key: Mapping[str, str]) -> list[dict[str, Any]]:
        """The entries of these points as they are now."""
        return [e for e in self.entries if key.get(e["row"]["point"]) == e["key"]]

    def add(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        write_text(self.path, "".join(json.dumps(e) + "\n" for e in self.entries))


def point_key(point: Point) -> str:
    """What decides a point's rows: methods, settings, the data read and the base model's weights."""
    described = point.describe()
    names = "+".join(dict.fromkeys(m.kind for m in point.methods)) or "zero-shot"
    config = RunConfig(**described["settings"], methods=[names])
    run = run_key(config, config.load_data(), base_fingerprint(*load_base(config.model)))
    return json.dumps({**described, "run": run}, sort_keys=True)


def portable_point(described: dict[str, Any]) -> dict[str, Any]:
    """The description without the folders of this machine."""
    settings = described["settings"]
    return {**described, "settings": {**settings, "dataset": portable(settings["dataset"])}}
