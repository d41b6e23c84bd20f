"""Train a classifier's tuning: AdamW, warm-up and linear decay, best epoch on validation kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..classifiers.classifier import Classifier
from ..errors import InputError
from ..notebook.progress import progress
from ..tuning.attach import Tuning


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave; losses in nats a text, training loss and accuracy over the epoch."""

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float

    def __str__(self) -> str:
        return (
            f"Epoch {self.epoch} - Loss: {self.loss:.4f} - Validation loss: {self.validation_loss:.4f}"
            f" - Accuracy: {100 * self.validation_accuracy:.1f}%"
        )


@dataclass(frozen=True)
class Split:
    """Texts and their label indices."""

    texts: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.texts)


def train(
    classifier: Classifier,
    tuning: Tuning,
    train_split: Split,
    validation_split: Split,
    *,
    learning_rate: float | Mapping[str, float],
    epochs: int = 3,
    batch_size: int = 16,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    clip: float = 1.0,
    seed: int = 0,
    precision: str = "fp32",
    report: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train ``tuning``'s parameters and leave those of the best epoch in the model.

    The best epoch has the lowest validation loss.  Batches hold texts of like length; ``warmup``
    is the share of the steps in which the rate rises; ``learning_rate`` may be a rate for each
    method's kind.  Runs under ``accelerate launch`` on several processes unchanged.
    """
    if not len(train_split) or not len(validation_split):
        raise InputError("train_size", len(train_split), "at least one training and one validation text")
    set_seed(seed)
    AcceleratorState._reset_state()  # else a process could never train with a second precision
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    sampler = LengthGroupedSampler(
        batch_size,
        lengths=[len(text) for text in train_split.texts],
        generator=torch.Generator().manual_seed(seed),
    )
    loader: DataLoader = DataLoader(
        range(len(train_split)),  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=lambda rows: torch.tensor(rows),
    )
    optimizer = torch.optim.AdamW(tuning.parameter_groups(learning_rate), weight_decay=weight_decay)
    steps = epochs * len(loader)
    schedule = get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps)
    model, optimizer, loader, schedule = accelerator.prepare(classifier, optimizer, loader, schedule)
    history: list[Epoch] = []
    best: dict[str, torch.Tensor] = {}
    for epoch in range(1, epochs + 1):
        model.train()
        total, seen = 0.0, 0
        for rows in progress(loader, f"epoch {epoch} of {epochs}", total=len(loader)):
            indices = rows.tolist()
            texts = [train_split.texts[i] for i in indices]
            with accelerator.autocast():
                loss = model(texts, [train_split.labels[i] for i in indices])
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(tuning.parameters(), clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total, seen = total + loss.item() * len(indices), seen + len(indices)
        with accelerator.autocast():
            logits = classifier.predict_logits(validation_split.texts)
        target = torch.tensor(validation_split.labels)
        history.append(
            Epoch(
                epoch=epoch,
                loss=total / seen,
                validation_loss=F.cross_entropy(logits, target).item(),
                validation_accuracy=(logits.argmax(-1) == target).float().mean().item(),
            )
        )
        if history[-1].validation_loss == min(e.validation_loss for e in history):
            best = {n: p.detach().clone() for n, p in tuning.named_parameters()}
        if report is not None:
            report(history[-1])
    with torch.no_grad():
        for name, parameter in tuning.named_parameters():
            parameter.copy_(best[name])
    classifier.eval()
    return history


def as_rows(history: list[Epoch]) -> list[dict[str, float]]:
    """The history as plain data."""
    return [asdict(epoch) for epoch in history]
