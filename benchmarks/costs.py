"""What a tuning costs beside the accuracy that it reaches: what the language model forgets, a file, memory."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import DatasetDict
from torch import Tensor

from hybridft_utils import load_reviews
from hybridft_utils.classifiers.classifier import Classifier
from hybridft_utils.experiments.fine_tune import Tuned
from hybridft_utils.models.scoring import token_log_probabilities

#: Sentences of another domain, on which the language model is scored before and after.
ELSEWHERE, TEXTS = "package:vader-products", 100
#: Texts in the batch whose memory is counted; in 32 bits a trained number has a gradient and Adam's two averages.
BATCH, BYTES_PER_TRAINED = 16, 12


def language_loss(classifier: Classifier, texts: list[str]) -> Tensor:
    """Mean next-token loss of each text in nats per token, (texts,)."""
    scored = token_log_probabilities(classifier.model, classifier.tokenizer, texts, 255, batch_size=32)
    return torch.stack([-row.mean() for row in scored])


def rise(tuned: Tuned, texts: list[str]) -> list[float]:
    """By how much the language model's loss has risen on each of ``texts``, in nats per token."""
    if tuned.tuning is None:
        return [0.0] * len(texts)
    after = language_loss(tuned.classifier, texts)
    with tuned.tuning.disabled():
        return [round(value, 4) for value in (after - language_loss(tuned.classifier, texts)).tolist()]


def file_size(tuned: Tuned) -> int:
    """Bytes of the saved tuning."""
    if tuned.tuning is None:
        return 0
    with TemporaryDirectory() as folder:
        tuned.tuning.save(Path(folder) / "tuning")
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def training_memory(tuned: Tuned, texts: list[str], labels: list[int]) -> int:
    """Bytes of a training step on ``texts``: weights, gradients, Adam's averages, and the activations that the
    backward pass needs.
    """
    weights = {p.untyped_storage().data_ptr(): p.nbytes for p in tuned.classifier.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trained = 0 if tuned.tuning is None else tuned.tuning.count().trained
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = tuned.classifier.loss(texts, labels)  # alive, so that no storage is used twice
    return (
        sum(weights.values())
        + BYTES_PER_TRAINED * trained
        + (sum(kept.values()) if loss.requires_grad else 0)
    )


def probe(tuned: Tuned, data: DatasetDict) -> dict[str, Any]:
    """``forgetting`` on each of 100 product sentences; ``file`` and ``memory`` in bytes, the longest texts in the
    batch.
    """
    elsewhere = list(load_reviews(ELSEWHERE)["validation"]["text"])[:TEXTS]
    rows = sorted(
        zip(data["train"]["text"], data["train"]["label"], strict=True), key=lambda row: -len(row[0])
    )
    texts, labels = zip(*rows[:BATCH], strict=True)
    return {
        "forgetting": rise(tuned, elsewhere),
        "file": file_size(tuned),
        "memory": training_memory(tuned, list(texts), list(labels)),
    }
