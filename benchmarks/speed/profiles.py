"""Where a training step's time goes, and how fast this machine multiplies matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, record_function

from hybridft_utils.methods.products import onednn_linear

from . import subjects
from .rounds import take_turns
from .steps import BATCH_SIZE, SHAPES, flops, our_step, peft_step

STEPS = 4
#: Names of PyTorch's operations, or their beginnings, by what they do.
GROUPS = {
    "matrix products": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "mkldnn::_linear_pointwise",
    ),
    "attention": ("aten::_scaled_dot_product",),
    "optimiser": ("aten::_fused_adamw_", "Optimizer."),
    "Python": ("whole step",),
}


def group(name: str) -> str:
    return next((g for g, starts in GROUPS.items() if name.startswith(starts)), "everything else")


def shares(step: Callable[[], object]) -> dict[str, float]:
    """Each group's share of the time of ``step``; "Python" is what lies between PyTorch's operations."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            with record_function("whole step"):
                step()
    seconds = dict.fromkeys([*GROUPS, "everything else"], 0.0)
    for event in found.key_averages():
        seconds[group(event.key)] += event.self_cpu_time_total
    return {name: round(value / sum(seconds.values()), 4) for name, value in seconds.items()}


def rates(width: int, rows: int = 1024, repeats: int = 20) -> dict[str, float]:
    """Billions of multiplications and additions per processor second in a product of ``rows`` rows."""
    x, W = torch.randn(rows, width), torch.randn(width, width)
    half = x.bfloat16(), W.bfloat16()
    products: dict[str, Callable[[], object]] = {
        "fp32, MKL": lambda: F.linear(x, W),
        "fp32, oneDNN": lambda: onednn_linear(x, W, None, "none", [], ""),
        "bf16, oneDNN": lambda: F.linear(*half),
    }
    many = {n: lambda call=call: [call() for _ in range(repeats)] for n, call in products.items()}
    seconds = take_turns(many, 3)
    return {n: round(2e-9 * repeats * rows * width**2 / min(s), 1) for n, s in seconds.items()}


def measure() -> dict[str, Any]:
    texts = sorted(subjects.reviews(200)[0], key=len)[-BATCH_SIZE:]
    found: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        steps = {m: our_step("llama", shape, m, texts) for m in ("full", "lora", "lora+prefix")}
        steps["lora (PEFT)"] = peft_step("llama", shape, "lora", texts)
        seconds = take_turns(steps, STEPS, title=f"profile, {name}")
        eager = {m: our_step("llama", shape, m, texts, "eager") for m in ("full", "lora", "lora+prefix")}
        eager["lora (PEFT)"] = peft_step("llama", shape, "lora", texts, "eager")
        found[name] = {
            method: {
                "seconds": round(min(seconds[method]), 4),
                "billion_operations": round(flops(eager[method]) / 1e9, 2),
                "shares": shares(step),
            }
            for method, step in steps.items()
        }
        found[name]["billion_operations_per_second"] = rates(shape[0])
    return {"settings": {"batch_size": BATCH_SIZE, "steps": STEPS, "family": "llama"}, "shapes": found}
