"""How time and memory of a training step grow with what a reader may choose.

Memory is what the forward pass keeps for the backward pass, in bytes, counted exactly: every stored tensor once,
parameters left out.  Each growth is fitted by a power, the slope on logarithmic axes over the sizes measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from scipy.stats import linregress
from torch import Tensor

from hybridft_utils import FullFineTuning, LoRA, Prefix, attach
from hybridft_utils.methods.parts import Method

from . import subjects

SIZES: dict[str, tuple[int, ...]] = {
    "rank": (1, 4, 16, 64),
    "prefix_length": (1, 8, 32, 128),
    "sequence_length": (32, 64, 128, 256),
    "batch_size": (4, 8, 16, 32),
    "width": (128, 256, 512),
    "examples": (32, 64, 128),
}
REPEATS = 3


def hybrid(rank: int = 8, prefix_length: int = 16) -> tuple[Method, ...]:
    return LoRA(rank), Prefix(prefix_length)


def step(
    methods: tuple[Method, ...],
    width: int = 256,
    sequence_length: int = 64,
    batch_size: int = 8,
    examples: int = 0,
) -> Callable[[], int]:
    """Steps over ``examples`` random texts, at least one step; returns the bytes that one forward pass keeps."""
    model = subjects.model("llama", width, 4)
    tuning = attach(model, *methods)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(2, subjects.VOCABULARY, (batch_size, sequence_length))
    mask = torch.ones_like(ids)

    def one() -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            loss = model.lm_head(hidden[:, -1]).logsumexp(-1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return sum(kept.values())

    def run() -> int:
        return max(one() for _ in range(max(1, examples // batch_size)))

    return run


def measure() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, sizes in SIZES.items():
        in_method = name in ("rank", "prefix_length")
        for label, methods in (("lora+prefix", hybrid()), ("full", (FullFineTuning(),))):
            if in_method and label == "full":
                continue
            seconds, kept = [], []
            for size in sizes:
                run = step(hybrid(**{name: size})) if in_method else step(methods, **{name: size})
                times = []
                for number in range(REPEATS + 1):
                    start = time.process_time()
                    stored = run()
                    if number:
                        times.append(time.process_time() - start)
                seconds.append(round(median(times), 4))
                kept.append(stored)
            power = {
                "seconds": round(linregress([*map(_log, sizes)], [*map(_log, seconds)]).slope, 3),
                "bytes": round(linregress([*map(_log, sizes)], [*map(_log, kept)]).slope, 3),
            }
            found[f"{name}, {label}"] = {"sizes": sizes, "seconds": seconds, "bytes": kept, "power": power}
    return {"growth": found}


def _log(value: float) -> float:
    return torch.tensor(float(value)).log().item()
