"""LoRA against full fine-tuning: rank, alpha, which matrices, few texts, and what is forgotten.

All points but two share LoRA's learning rate.  Ranks are compared at one alpha, since with Adam the first
step's effect on the loss is proportional to (alpha / rank) * rank = alpha (chapter 06).
"""

from typing import Any

import torch
from datasets import DatasetDict
from torch import Tensor

from hybridft_utils import FullFineTuning, LoRA
from hybridft_utils.experiments.fine_tune import Tuned
from hybridft_utils.experiments.studies import Point
from hybridft_utils.methods.lora import LoRALinear
from hybridft_utils.tuning.attach import Tuning

from .costs import language_loss
from .points import FEW

#: Ranks at which a probe says how much of an update its best approximation keeps.
RANKS = (1, 2, 8, 32)


def updates(tuning: Tuning) -> list[Tensor]:
    """What was added to each matrix of the layers, by LoRA or by training it in place."""
    layers = [part.module for part in tuning.parts if isinstance(part.module, LoRALinear)]
    if layers:
        return [layer.delta().detach() for layer in layers]
    matrices = {n: p for n, p in tuning.named_parameters() if p.ndim == 2 and ".layers." in n}
    tuned = {name: parameter.detach().clone() for name, parameter in matrices.items()}
    with tuning.disabled():
        return [tuned[name] - parameter.detach() for name, parameter in matrices.items()]


def probe(tuned: Tuned, data: DatasetDict) -> dict[str, Any]:
    """Norm and spectrum of the update, and the language model's loss with and without it."""
    assert tuned.tuning is not None
    found = updates(tuned.tuning)
    squares = [torch.linalg.svdvals(update) ** 2 for update in found]
    shares = [[(s[:rank].sum() / s.sum()).item() for rank in RANKS] for s in squares]
    texts = list(data["test"]["text"])[:200]
    row: dict[str, Any] = {
        "update_norm": round(sum(s.sum().item() for s in squares) ** 0.5, 5),
        "energy": [round(value, 4) for value in torch.tensor(shares).mean(0).tolist()],
        "language_loss": rounded(tuned, texts),
    }
    with tuned.tuning.disabled():
        row["language_loss_base"] = rounded(tuned, texts)
    return row


def rounded(tuned: Tuned, texts: list[str]) -> list[float]:
    return [round(loss, 4) for loss in language_loss(tuned.classifier, texts).tolist()]


POINTS = {
    "full": Point((FullFineTuning(),), probe=probe),
    **{f"rank {rank}": Point((LoRA(rank=rank),), probe=probe) for rank in RANKS},
    "alpha 4": Point((LoRA(alpha=4.0),), probe=probe),
    "alpha 64": Point((LoRA(alpha=64.0),), probe=probe),
    "attention": Point((LoRA(target_modules="attention"),), probe=probe),
    "mlp": Point((LoRA(target_modules="mlp"),), probe=probe),
    "query and value": Point((LoRA(target_modules=("q_proj", "v_proj")),), probe=probe),
    "full, 100 texts": Point((FullFineTuning(),), FEW, probe=probe),
    "rank 8, 100 texts": Point((LoRA(),), FEW, probe=probe),
    "reviews-en": Point(
        (LoRA(),),
        {"dataset": "builtin:reviews-en", "train_size": 64, "validation_size": 64, "epochs": 1},
    ),
}
