"""Time one training step of each method as a ratio to full fine-tuning, side by side in one process.

``make bench`` writes ``benchmarks/results/speed.json``: steps of all methods take turns, so that what else
the machine does hits all alike; a ratio is the median over rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import peft
import torch
from tqdm import tqdm

from hybridft_utils import Adapter, FullFineTuning, LoRA, Prefix, SoftPrompt, attach, load_base
from hybridft_utils.experiments.provenance import provenance
from hybridft_utils.experiments.results import RESULTS
from hybridft_utils.files import write_json

BATCH_SIZE, LENGTH, ROUNDS, WARM_UP = 16, 64, 30, 3
METHODS = {
    "full": (FullFineTuning(),),
    "lora": (LoRA(),),
    "prefix": (Prefix(),),
    "prompt": (SoftPrompt(),),
    "adapter": (Adapter(),),
    "lora+prefix": (LoRA(), Prefix()),
}


def stepper(model: torch.nn.Module, parameters: list[torch.nn.Parameter]) -> Callable[[], float]:
    """A training step (forward, backward, AdamW) that returns the seconds it took."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    ids = torch.randint(2, model.config.vocab_size, (BATCH_SIZE, LENGTH))  # type: ignore[union-attr, arg-type]
    model.train()

    def step() -> float:
        start = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return step


def steppers() -> dict[str, Callable[[], float]]:
    """Our methods, and PEFT's LoRA on the same layers."""
    made = {}
    for name, methods in METHODS.items():
        model, _ = load_base("builtin:movies")
        made[name] = stepper(model, attach(model, *methods).parameters())
    model, _ = load_base("builtin:movies")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
    theirs = peft.get_peft_model(model, config)
    made["lora (PEFT)"] = stepper(theirs, [p for p in theirs.parameters() if p.requires_grad])
    return made


def main() -> None:
    torch.manual_seed(0)
    steps = steppers()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(WARM_UP + ROUNDS), "rounds"):
        for name, step in steps.items():
            seconds[name].append(step())
    kept = {name: values[WARM_UP:] for name, values in seconds.items()}
    ratios = {
        name: median(v / f for v, f in zip(values, kept["full"], strict=True))
        for name, values in kept.items()
    }
    settings = {"batch_size": BATCH_SIZE, "length": LENGTH, "rounds": ROUNDS}
    content = {"settings": settings, "ratio_to_full": ratios, "seconds": kept, "provenance": provenance()}
    write_json(RESULTS / "speed.json", content)
    for name, ratio in ratios.items():
        print(f"{name:>12}: {100 * ratio:.0f} % of full fine-tuning")


if __name__ == "__main__":
    main()
