"""``python -m benchmarks.speed [NAMES]``: all measurements but the long one, or those named."""

from __future__ import annotations

import argparse
import time

import torch
import transformers

from hybridft_utils.evidence.provenance import provenance
from hybridft_utils.experiments.results import RESULTS
from hybridft_utils.files import write_json

from . import answers, growth, memory, precision, profiles, steps, throughput

MEASUREMENTS = {
    "steps": steps.measure,
    "profiles": profiles.measure,
    "throughput": throughput.measure,
    "growth": growth.measure,
    "answers": answers.measure,
    "memory": memory.measure,
    "precision": precision.measure,
}
#: Takes minutes for itself, so it runs only if it is named.
LONG = {"precision"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        help=f"some of {', '.join(MEASUREMENTS)}; none: all but {', '.join(LONG)}",
    )
    names = parser.parse_args().names or [name for name in MEASUREMENTS if name not in LONG]
    if unknown := set(names) - MEASUREMENTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; accepted: {', '.join(MEASUREMENTS)}")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for name in names:
        torch.manual_seed(0)
        start = time.perf_counter()
        found = MEASUREMENTS[name]()
        seconds = round(time.perf_counter() - start, 1)
        write_json(
            RESULTS / f"bench-{name}.json", {**found, "provenance": {**provenance(), "seconds": seconds}}
        )
        print(f"{name}: {seconds:.0f} s, {RESULTS.name}/bench-{name}.json", flush=True)


if __name__ == "__main__":
    main()
