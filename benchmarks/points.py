"""Run the points of a study, on several processes, going on where a killed run stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hybridft_utils.experiments.provenance import portable, provenance
from hybridft_utils.experiments.results import RESULTS
from hybridft_utils.experiments.studies import Point, measure
from hybridft_utils.files import write_json

SEEDS = range(5)
#: How the sentences of SST-2 are read, and trained on: bfloat16 takes two thirds of the time where the
#: processor has it.  Points on the book's own reviews, which the chapters run again, stay in float32.
SENTENCES: dict[str, Any] = {"detokenize": True, "precision": "bf16"}


def run_points(
    name: str, points: Mapping[str, Point], dataset: str, jobs: int = 1, seeds: range | list[int] = SEEDS
) -> None:
    """Measure every point with every seed and write ``benchmarks/results/study-NAME.json``.

    A point trains on ``dataset`` unless its settings name another.  Finished rows are kept in
    ``runs/studies/NAME.jsonl``; rows of a point that has changed since are measured again.
    """
    placed = {
        label: replace(p, settings={"dataset": dataset, **SENTENCES, **p.settings})
        if "dataset" not in p.settings
        else p
        for label, p in points.items()
    }
    kept = Path("runs/studies") / f"{name}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    key = {label: json.dumps(p.describe(), sort_keys=True) for label, p in placed.items()}
    rows = [e["row"] for e in done if e["row"]["point"] in key and e["key"] == key[e["row"]["point"]]]
    found = {(row["point"], row["seed"]) for row in rows}
    tasks = [(label, seed) for seed in seeds for label in placed if (label, seed) not in found]
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    with pool, kept.open("a") as file:
        futures = {pool.submit(measure, placed[label], seed): label for label, seed in tasks}
        for future in tqdm(as_completed(futures), name, len(futures)):
            row = {"point": futures[future], **future.result()}
            rows.append(row)
            file.write(json.dumps({"key": key[row["point"]], "row": row}) + "\n")
            file.flush()
    order = list(placed)
    rows.sort(key=lambda row: (order.index(row["point"]), row["seed"]))
    write_json(
        RESULTS / f"study-{name}.json",
        {
            "name": name,
            "points": {label: portable_point(p.describe()) for label, p in placed.items()},
            "rows": rows,
            "provenance": {**provenance(), "command": f"make studies NAMES={name}"},
        },
    )


def portable_point(described: dict[str, Any]) -> dict[str, Any]:
    """The description without the folders of this machine."""
    settings = described["settings"]
    return {**described, "settings": {**settings, "dataset": portable(settings["dataset"])}}
