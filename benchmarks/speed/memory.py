"""Peak memory of a training process, of a model shaped like GPT-2 small, each method in a process of its own."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from hybridft_utils import attach

from . import subjects

WIDTH, LAYERS, BATCH_SIZE, STEPS = 768, 12, 4, 2
METHODS = ("full", "lora", "prefix", "adapter", "lora+prefix")


def peak() -> int:
    """The most memory this process has held, in bytes (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux says VmHWM"
    return 1024 * int(found[1])


def train(method: str) -> dict[str, int]:
    """Two steps; what the libraries alone take is measured before the model is made."""
    torch.set_num_threads(1)
    texts = sorted(subjects.reviews(100)[0], key=len)[-BATCH_SIZE:]
    libraries = peak()
    classifier = subjects.classifier(subjects.model("gpt2", WIDTH, LAYERS))
    tuning = attach(classifier, *subjects.METHODS[method])
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=1e-5, fused=True)
    for _ in range(STEPS):
        classifier.loss(texts, torch.tensor([0, 1] * (BATCH_SIZE // 2))).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"bytes": peak() - libraries, "trained": tuning.count().trained, "total": tuning.count().total}


def measure() -> dict[str, Any]:
    found = {}
    for method in METHODS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found[method] = pool.submit(train, method).result()
    full = found["full"]["bytes"]
    return {
        "settings": {"width": WIDTH, "layers": LAYERS, "batch_size": BATCH_SIZE, "steps": STEPS},
        "peak": found,
        "ratio_to_full": {method: round(row["bytes"] / full, 4) for method, row in found.items()},
    }
