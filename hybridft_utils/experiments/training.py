"""Train a classifier's tuning with AdamW, warm-up and linear decay, and keep the best epoch on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, set_seed
from torch.utils.data import BatchSampler
from transformers import get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..classifiers.classifier import Classifier
from ..errors import InputError
from ..notebook.progress import progress
from ..tuning.attach import Tuning
from .splits import Split


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: losses in nats per text, ``loss`` as the mean over the epoch's training texts."""

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float

    def __str__(self) -> str:
        return (
            f"Epoch {self.epoch} - Loss: {self.loss:.4f} - Validation loss: {self.validation_loss:.4f}"
            f" - Accuracy: {100 * self.validation_accuracy:.1f}%"
        )


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

    The best epoch has the lowest validation loss.  Batches hold texts of similar length; ``warmup``
    is the share of the steps in which the rate rises; ``learning_rate`` may be a rate for each
    method's kind.  Under ``accelerate launch`` the processes share every batch, so several of them train as
    one does.

    Raises :class:`InputError` for settings that cannot work, and as soon as a loss is not finite.
    """
    for name, split in (("train_split", train_split), ("validation_split", validation_split)):
        if not len(split):
            raise InputError(name, "no texts", "at least one text")
    rates = learning_rate.values() if isinstance(learning_rate, Mapping) else [learning_rate]
    numbers = {"learning_rate": max(rates), "weight_decay": weight_decay, "clip": clip}
    for name, value in numbers.items():
        if not math.isfinite(value) or value < 0:
            raise InputError(name, value, "a finite number, 0 or more")
    if not 0 <= seed < 2**32:
        raise InputError("seed", seed, "0 to 2**32 - 1")
    check_precision(precision)
    set_seed(seed)
    AcceleratorState._reset_state()  # else a process could never train with a second precision
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        # The processes share a batch, so the schedule takes one step for all of them.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        # An encoder's pooler, say, is trained with the whole model, and no loss depends on it.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    sampler = LengthGroupedSampler(
        batch_size,
        lengths=[len(text) for text in train_split.texts],
        generator=torch.Generator().manual_seed(seed),
    )
    batches = BatchSampler(sampler, batch_size, drop_last=False)
    optimizer = torch.optim.AdamW(
        tuning.parameter_groups(learning_rate), weight_decay=weight_decay, fused=True
    )
    steps = epochs * len(batches)
    schedule = get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps)
    model, optimizer, schedule = accelerator.prepare(classifier, optimizer, schedule)
    history: list[Epoch] = []
    best: dict[str, torch.Tensor] = {}
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        for rows in progress(batches, f"epoch {epoch} of {epochs}", total=len(batches)):
            # Each process takes its share of the batch, weighted so that the mean of the gradients is the whole
            # batch's; one without a share takes part with weight 0.
            mine = rows[accelerator.process_index :: accelerator.num_processes]
            weight = len(mine) * accelerator.num_processes / len(rows)
            mine = mine or rows[:1]
            with accelerator.autocast():
                texts = [train_split.texts[i] for i in mine]
                loss = weight * model(texts, [train_split.labels[i] for i in mine])
            value = accelerator.reduce(loss.detach(), "mean").item()
            check_loss(value, tuning, learning_rate, epoch)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(tuning.parameters(), clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += value * len(rows)
        with accelerator.autocast():
            logits = classifier.predict_logits(validation_split.texts)
        target = torch.tensor(validation_split.labels)
        validation_loss = F.cross_entropy(logits, target).item()
        check_loss(validation_loss, tuning, learning_rate, epoch)
        history.append(
            Epoch(
                epoch=epoch,
                loss=total / len(train_split),
                validation_loss=validation_loss,
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


def check_precision(precision: str) -> None:
    """Refuse what this machine would silently replace by single precision."""
    device = PartialState().device.type
    if precision == "fp16" and device not in ("cuda", "xpu"):
        raise InputError(
            "precision", precision, f"fp32 or bf16, since training in fp16 needs a GPU, not {device}"
        )


def check_loss(loss: float, tuning: Tuning, learning_rate: float | Mapping[str, float], epoch: int) -> None:
    """Stop a training that has diverged, and name its methods."""
    if math.isfinite(loss):
        return
    kinds = [*(m.kind for m in tuning.methods), *(["also_train"] if tuning.also_train else [])]
    if isinstance(learning_rate, Mapping):
        learning_rate = {kind: learning_rate[kind] for kind in kinds}
    accepted = f"a rate at which the loss of {'+'.join(kinds)} stays finite; it was {loss} in epoch {epoch}"
    raise InputError("learning_rate", learning_rate, accepted)


def as_rows(history: list[Epoch]) -> list[dict[str, float]]:
    """The history as plain data."""
    return [asdict(epoch) for epoch in history]
