"""The measured comparisons of the book; each writes one file of ``benchmarks/results``.

``python -m benchmarks.studies`` lists the studies; with names it runs them, with ``all`` all.  They train on
``package:vader-movies``; SST-2 and the encoder, which few runs need, are folders or Hub ids (``--sst2``,
``--encoder``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from hybridft_utils import InputError, RunConfig, run
from hybridft_utils.experiments.cluster import jobs_or_address
from hybridft_utils.experiments.results import RESULTS

from . import (
    adapters,
    batch_sizes,
    comparison,
    composition,
    full_fine_tuning,
    hybrid,
    learning_rates,
    lora,
    prefix,
    prefix_starts,
    prompts,
)
from .points import MOVIES, SEEDS, run_points

METHODS = ["full", "lora", "prefix", "lora+prefix"]
SST2: dict[str, Any] = {"epochs": 3, "batch_size": 32, "save_tunings": False, "resume": True}
REVIEWS: dict[str, Any] = {
    "dataset": "builtin:reviews-en",
    "epochs": 5,
    "seeds": [0, 1, 2, 3, 4],
    "save_tunings": False,
    "resume": True,
}
#: The encoder's rates are usual ones, not searched; bfloat16 takes two thirds of the time where the processor
#: (or a GPU) has it.
ENCODER: dict[str, Any] = {
    "model": "encoder",
    "precision": "bf16",
    "learning_rate": {"full": 1e-4, "lora": 1e-3, "prefix": 5e-3, "also_train": 1e-3},
}

#: Settings of the sentiment runs by the name of their result file.
RUNS: dict[str, dict[str, Any]] = {
    "sst2-movies": {
        **SST2,
        "detokenize": True,
        "methods": ["zero-shot", "head", *METHODS],
        "seeds": [0, 1, 2, 3, 4],
    },
    "sst2-encoder": {**SST2, **ENCODER, "methods": ["full", "lora", "lora+prefix"], "seeds": [0, 1, 2]},
    "reviews-en-movies": {**REVIEWS, "methods": ["zero-shot", "full"]},
    "reviews-en-encoder": {**REVIEWS, **ENCODER, "methods": ["full"]},
}


def sentiment(name: str, options: argparse.Namespace) -> None:
    """One of :data:`RUNS`, on SST-2 unless its settings name another data set."""
    settings = {"dataset": options.sst2, "output_dir": f"runs/{name}", **RUNS[name]}
    if settings.get("model") == "encoder":
        settings["model"] = options.encoder
    run(RunConfig(**settings)).save(RESULTS / f"{name}.json")


#: Points of each study by its name; see :mod:`hybridft_utils.experiments.studies`.
POINTS = {
    "full-fine-tuning": full_fine_tuning.POINTS,
    "prompts": prompts.POINTS,
    "lora": lora.POINTS,
    "prefix": prefix.POINTS,
    "prefix-starts": prefix_starts.POINTS,
    "adapters": adapters.POINTS,
    "hybrid": hybrid.POINTS,
}
#: A study that chooses has seeds of its own.
SEEDS_OF = {"prefix-starts": prefix_starts.SEEDS}


def study(name: str, options: argparse.Namespace) -> None:
    """One of :data:`POINTS`."""
    run_points(name, POINTS[name], MOVIES, options.jobs, SEEDS_OF.get(name, SEEDS))


#: Studies whose points depend on what the search for learning rates found, and the search itself.
SEARCHED: dict[str, Callable[[str, int | str], None]] = {
    learning_rates.NAME: learning_rates.search,
    "few-shot": comparison.few_shot,
    "many-texts": comparison.many_texts,
    "batch-sizes": batch_sizes.batch_sizes,
    "composition": composition.composition,
}


def searched(name: str, options: argparse.Namespace) -> None:
    """One of :data:`SEARCHED`."""
    SEARCHED[name](name, options.jobs)


#: In this order: the search comes before what uses its rates, and what not every reader can run comes last.
STUDIES: dict[str, Callable[[str, argparse.Namespace], None]] = {
    **dict.fromkeys(SEARCHED, searched),
    **dict.fromkeys(POINTS, study),
    **dict.fromkeys(RUNS, sentiment),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"all, or some of {', '.join(STUDIES)}")
    parser.add_argument(
        "--sst2", default="../shared/data/sst2", help="folder with train.tsv, dev.tsv, test.tsv"
    )
    parser.add_argument(
        "--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="folder or Hub id"
    )
    parser.add_argument(
        "--jobs", default="1", help="processes of one thread each, or a Dask scheduler's address"
    )
    options = parser.parse_args()
    unknown = set(options.names) - {*STUDIES, "all"}
    if unknown or not options.names:
        raise InputError("names", " ".join(options.names), f"one or more of all, {', '.join(STUDIES)}")
    options.jobs = jobs_or_address("jobs", options.jobs)
    for name in STUDIES if "all" in options.names else options.names:
        STUDIES[name](name, options)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
