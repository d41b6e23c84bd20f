"""What every classifier on a pretrained model shares: loss, prediction, padding, and cutting long texts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..methods.products import fast_linear
from ..models.loading import context_length
from ..notebook.progress import progress
from .answer_slot import checkpointed, only_slot_in_last_layer


class Classifier(nn.Module):
    """A pretrained model that scores labels; subclasses say how, in :meth:`logits`.

    ``labels`` are the label names in the order of the logits.  ``max_length`` is the largest number of tokens
    in one input: by default 192, or the model's context where that is shorter.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_length: int | None = None,
    ):
        super().__init__()
        self.model, self.tokenizer, self.labels = model, tokenizer, list(labels)
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise InputError("labels", self.labels, "at least two different label names")
        context = context_length(model, tokenizer)
        self.max_length = min(context, 192) if max_length is None else max_length
        if not 8 <= self.max_length <= context:
            raise InputError("max_length", max_length, f"8 up to the model's context of {context} tokens")

    def describe(self) -> dict[str, Any]:
        """The settings, as JSON can hold them; :func:`hybridft_utils.classifiers.restore` is the inverse."""
        return {"kind": self.kind, "labels": self.labels, "max_length": self.max_length}

    @property
    def device(self) -> torch.device:
        return self.model.device

    def logits(self, texts: Sequence[str]) -> Tensor:
        """(batch, labels)."""
        raise AssertionError("a subclass says how texts are scored")

    def forward(self, texts: Sequence[str], label_indices: Sequence[int] | Tensor) -> Tensor:
        return self.loss(texts, label_indices)

    def loss(self, texts: Sequence[str], label_indices: Sequence[int] | Tensor) -> Tensor:
        """Mean cross-entropy in nats per text."""
        target = torch.as_tensor(label_indices, device=self.device)
        return F.cross_entropy(at_least_single(self.logits(texts)), target)

    @torch.no_grad()
    def predict_logits(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """(texts, labels) on the CPU, in evaluation mode; texts of similar length share a batch.

        Raises :class:`InputError` for a batch size below 1, and where a logit is not a number.
        """
        if batch_size < 1:
            raise InputError("batch_size", batch_size, "a whole number from 1")
        training = self.training
        self.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = torch.empty(len(texts), len(self.labels))
        for start in progress(range(0, len(order), batch_size), "texts"):
            rows = order[start : start + batch_size]
            out[rows] = self.logits([texts[i] for i in rows]).float().cpu()
        self.train(training)
        if out.isnan().any():
            given = f"logits that are no numbers for {int(out.isnan().any(1).sum())} of {len(texts)} texts"
            raise InputError("model", given, "a model with finite weights, trained without a diverging loss")
        return out

    def predict(self, texts: Sequence[str], batch_size: int = 64) -> list[str]:
        """The label name of each text."""
        if isinstance(texts, str):
            raise InputError("texts", texts, "a list of texts")
        for row, text in enumerate(texts):
            if not text.strip():
                raise InputError("texts", f"empty text at index {row}", "texts that are not empty")
        if not len(texts):
            return []
        return [self.labels[i] for i in self.predict_logits(texts, batch_size).argmax(-1).tolist()]

    def cut(self, text: str, tokens: int) -> str:
        """``text`` up to its first ``tokens`` tokens."""
        kept = self.tokenizer(
            text, add_special_tokens=False, truncation=True, max_length=tokens, return_offsets_mapping=True
        )
        return text[: kept.offset_mapping[-1][1]] if kept.offset_mapping else text

    def pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, (batch, longest), padded on the right."""
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([r + [pad] * (longest - len(r)) for r in rows], device=self.device)
        mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows], device=self.device)
        return ids, mask

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The last hidden states, (batch, tokens, hidden width)."""
        with nullcontext() if checkpointed(self.model) else fast_linear(ids.numel()):
            return self.model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state

    def at_slots(self, rows: list[list[int]], slots: Tensor) -> Tensor:
        """The last hidden states at ``slots`` (batch, k): (batch, k, hidden width)."""
        ids, mask = self.pad(rows)
        with only_slot_in_last_layer(self.model, slots, ids.shape[1]):
            hidden = self.hidden(ids, mask)
        return hidden.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))


def at_least_single(scores: Tensor) -> Tensor:
    """``scores`` in single precision or better, since half precision is too coarse for a softmax."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
