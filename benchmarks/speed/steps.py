"""One training step of each method against full fine-tuning, against PEFT, and against its arithmetic.

The bound of a method is the number of multiplications in its matrix products over full fine-tuning's, counted by
PyTorch while the step runs (attention in plain form, which the counter sees).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import peft
import torch
from torch.utils.flop_counter import FlopCounterMode

from hybridft_utils import attach

from . import subjects
from .rounds import ratios, take_turns

SHAPES = {"width 256, 4 layers": (256, 4), "width 768, 4 layers": (768, 4)}
BATCH_SIZE, ROUNDS = 16, 3


def our_step(
    family: str, shape: tuple[int, int], method: str, texts: list[str], attention: str = "sdpa"
) -> Callable[[], float]:
    """A whole step of ours: forward, backward, optimiser."""
    classifier = subjects.classifier(subjects.model(family, *shape, attention))
    tuning = attach(classifier, *subjects.METHODS[method])
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=1e-5, fused=True)
    labels = torch.tensor([0, 1] * (len(texts) // 2))

    def step() -> float:
        loss = classifier.loss(texts, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def peft_step(
    family: str, shape: tuple[int, int], method: str, texts: list[str], attention: str = "sdpa"
) -> Callable[[], float]:
    """The same step with PEFT's documented calls: cross-entropy of the label word where the answer stands."""
    base = subjects.model(family, *shape, attention)
    reader = subjects.classifier(base)
    causal = family != "bert"
    rows = reader.encode_all(texts)
    words = [reader.words[i % 2][1][0] for i in range(len(texts))]
    slots = [len(row) if causal else reader.mask_slots(row, 1)[0] for row in rows]
    rows = [[*row, word] for row, word in zip(rows, words, strict=True)] if causal else rows
    ids, mask = reader.pad(rows)
    labels = torch.full_like(ids, -100)
    labels[torch.arange(len(rows)), torch.tensor(slots)] = torch.tensor(words)
    wrapped = peft.get_peft_model(base, subjects.peft_config(method, "CAUSAL_LM" if causal else None))
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def step() -> float:
        loss = wrapped(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def flops(step: Callable[[], float]) -> int:
    """Multiplications and additions in the matrix products of one step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def measure() -> dict[str, Any]:
    texts, _ = subjects.reviews(200)
    texts = sorted(texts, key=len)[-BATCH_SIZE:]
    found: dict[str, Any] = {}
    for family in subjects.FAMILIES:
        for name, shape in SHAPES.items():
            makers = {m: partial(our_step, family, shape, m, texts) for m in subjects.METHODS}
            # PEFT has no task type for masked models: LoRA is all that runs on them.
            others = ("lora", "prefix", "prompt") if family != "bert" and shape[0] == 256 else ("lora",)
            makers |= {f"{m} (PEFT)": partial(peft_step, family, shape, m, texts) for m in others}
            seconds = take_turns({m: make() for m, make in makers.items()}, ROUNDS, title=f"{family}, {name}")
            counted = {m: flops(make(attention="eager")) for m, make in makers.items()}
            found[f"{family}, {name}"] = {
                "ratio_to_full": ratios(seconds, "full"),
                "bound": {m: round(count / counted["full"], 4) for m, count in counted.items()},
            }
    return {"settings": {"batch_size": BATCH_SIZE, "rounds": ROUNDS}, "shapes": found}
