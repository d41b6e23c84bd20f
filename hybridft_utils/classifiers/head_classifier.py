"""A new linear head on the pretrained model's pooled hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from .classifier import Classifier


class HeadClassifier(Classifier):
    """A new linear head on the pooled last hidden states.

    ``pooling``: "mean" over the text's tokens, "cls" the first token, "last" the text's last token.
    """

    kind: ClassVar[str] = "head"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        pooling: Literal["mean", "cls", "last"] = "mean",
        dropout: float = 0.1,
        max_length: int | None = None,
    ):
        super().__init__(model, tokenizer, labels, max_length)
        if pooling not in ("mean", "cls", "last"):
            raise InputError("pooling", pooling, "'mean', 'cls' or 'last'")
        if not 0 <= dropout < 1:
            raise InputError("dropout", dropout, "0 or more and less than 1")
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(model.config.hidden_size, len(self.labels))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.train(model.training)

    def describe(self) -> dict[str, Any]:
        """The settings; the head's weights are no part of them."""
        return {**super().describe(), "pooling": self.pooling, "dropout": self.dropout.p}

    def logits(self, texts: Sequence[str]) -> Tensor:
        return self.head(self.dropout(self.features(texts)))

    def features(self, texts: Sequence[str]) -> Tensor:
        """(batch, hidden width)."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        rows = [list(row) for row in encoded.input_ids]
        if self.pooling != "mean":
            slots = [[len(row) - 1 if self.pooling == "last" else 0] for row in rows]
            return self.at_slots(rows, torch.tensor(slots, device=self.device))[:, 0]
        ids, mask = self.pad(rows)
        hidden = self.hidden(ids, mask)
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)
