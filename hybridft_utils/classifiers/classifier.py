"""Two ways to make a classifier of a pretrained model: a prompt with label words, or a new head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..methods.architectures import find_architecture
from ..models.loading import context_length
from ..notebook.progress import progress
from .prompts import PromptTemplate, Verbalizer

#: Texts without content, whose scores show the label words' prior (Zhao et al. 2021).
CONTENT_FREE = ("N/A", "...", "")


class Classifier(nn.Module):
    """What both kinds share: loss, prediction, and cutting long texts.

    ``labels`` are the label names; ``max_length`` the most tokens one input may have (by default 192, or
    the context where that is shorter; the rest is room for a soft prompt).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_length: int | None = None,
    ):
        super().__init__()
        self.model, self.tokenizer, self.labels = model, tokenizer, list(labels)
        context = context_length(model, tokenizer)
        self.max_length = min(context, 192) if max_length is None else max_length
        if not 8 <= self.max_length <= context:
            raise InputError("max_length", max_length, f"8 up to the model's context of {context} tokens")

    @property
    def device(self) -> torch.device:
        return self.model.device

    def logits(self, texts: Sequence[str]) -> Tensor:
        """(batch, labels)."""
        raise AssertionError("a subclass says how texts are scored")

    def forward(self, texts: Sequence[str], label_indices: Sequence[int] | Tensor) -> Tensor:
        return self.loss(texts, label_indices)

    def loss(self, texts: Sequence[str], label_indices: Sequence[int] | Tensor) -> Tensor:
        """Mean cross-entropy in nats a text."""
        target = torch.as_tensor(label_indices, device=self.device)
        return F.cross_entropy(self.logits(texts).float(), target)

    @torch.no_grad()
    def predict_logits(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """(texts, labels) on the CPU, in evaluation mode; texts of like length share a batch."""
        training = self.training
        self.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = torch.empty(len(texts), len(self.labels))
        for start in progress(range(0, len(order), batch_size), "texts"):
            rows = order[start : start + batch_size]
            out[rows] = self.logits([texts[i] for i in rows]).float().cpu()
        self.train(training)
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


class PromptClassifier(Classifier):
    r"""Scores a label by the probability of its words in the prompt.

    .. math:: s_c(x) = \log \frac{1}{|W_c|} \sum_{w \in W_c} p(w \mid \text{template}(x))

    Causal models read the prompt up to the label and score the label's tokens one after the other;
    masked models see one mask a token and score all at once (PET, Schick and Schütze 2021).  Only
    the label's positions are projected onto the vocabulary.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: PromptTemplate,
        verbalizer: Verbalizer,
        max_length: int | None = None,
    ):
        super().__init__(model, tokenizer, verbalizer.labels, max_length)
        self.template, self.verbalizer = template, verbalizer
        architecture = find_architecture(model)
        if architecture.head is None or not hasattr(model, architecture.head):
            accepted = "a causal or masked language model (HeadClassifier takes encoders)"
            raise InputError("model", type(model).__name__, accepted)
        self.causal, self._head = architecture.causal, architecture.head
        if self.causal and not template.label_last:
            raise InputError("template", template.pattern, "{label} after {text} for a causal model")
        self.words = [
            (index, self.word_tokens(word))
            for index, label in enumerate(self.labels)
            for word in verbalizer.words[label]
        ]
        owner: dict[tuple[int, ...], int] = {}
        for index, tokens in self.words:
            if owner.setdefault(tokens, index) != index:
                given = f"words of {self.labels[owner[tokens]]} and {self.labels[index]} with the same tokens"
                raise InputError("label_words", given, "words that the tokenizer tells apart")
        longest = max(len(tokens) for _, tokens in self.words)
        self.room = self.max_length - len(self.encode("")) - longest
        if self.room < 1:
            raise InputError(
                "template", template.pattern, f"a template shorter than {self.max_length} tokens"
            )
        self.prior: Tensor
        self.register_buffer("prior", torch.zeros(len(self.labels)))
        self.train(model.training)  # as the model was given: loaded models are in evaluation mode

    def word_tokens(self, word: str) -> tuple[int, ...]:
        """The tokens of a label word where the template has it."""
        if not self.causal:
            return tuple(self.tokenizer(self.template.label_space + word, add_special_tokens=False).input_ids)
        context = self.encode("x")
        whole = self.strip_end(self.tokenizer(self.template.context("x") + self.template.label_space + word))
        if whole[: len(context)] != context or len(whole) == len(context):
            given = f"{word} in {self.template.pattern}"
            raise InputError("label_words", given, "words that start a new token after the template")
        return tuple(whole[len(context) :])

    def strip_end(self, encoded) -> list[int]:
        """Token ids without the end-of-text tokens that some tokenizers append."""
        ids = list(encoded.input_ids)
        while len(ids) > 1 and ids[-1] in self.tokenizer.all_special_ids:
            ids.pop()
        return ids

    def encode(self, text: str, masks: int = 1) -> list[int]:
        """A prompt's token ids: up to the label, or whole with ``masks`` mask tokens."""
        if self.causal:
            return self.strip_end(self.tokenizer(self.template.context(text)))
        label = " ".join([self.tokenizer.mask_token] * masks)
        return list(self.tokenizer(self.template.fill(text, label)).input_ids)

    def encode_all(self, texts: Sequence[str], masks: int = 1) -> list[list[int]]:
        """The prompts' token ids, with texts cut where a prompt would be too long."""
        rows = [self.encode(text, masks) for text in texts]
        for index, row in enumerate(rows):
            if len(row) > self.max_length - (0 if not self.causal else 1):
                rows[index] = self.encode(self.cut(texts[index], self.room), masks)
        return rows

    def log_probabilities(self, rows: list[list[int]], slots: Tensor) -> Tensor:
        """Log-probabilities of the vocabulary at ``slots`` (batch, k): (batch, k, vocabulary)."""
        ids, mask = self.pad(rows)
        hidden = self.model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        at_slots = hidden.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))
        return self.model.get_submodule(self._head)(at_slots).float().log_softmax(-1)

    def word_scores(self, texts: Sequence[str]) -> Tensor:
        """Log-probability of each label word, (batch, words)."""
        scores: list[Tensor | None] = [None] * len(self.words)
        # One pass scores all words that agree on every token but the last (masked: on their number).
        groups: dict[tuple[int, ...], list[int]] = {}
        for position, (_, tokens) in enumerate(self.words):
            key = tokens[:-1] if self.causal else (len(tokens),)
            groups.setdefault(key, []).append(position)
        for key, positions in groups.items():
            if self.causal:
                contexts = self.encode_all(texts)
                rows = [row + list(key) for row in contexts]
                slots = torch.tensor([[len(row) - 1 + i for i in range(len(key) + 1)] for row in contexts])
            else:
                rows = self.encode_all(texts, masks=key[0])
                slots = torch.tensor([self.mask_slots(row, key[0]) for row in rows])
            log_p = self.log_probabilities(rows, slots.to(self.device))
            for position in positions:
                tokens = self.words[position][1]
                scores[position] = sum(log_p[:, i, token] for i, token in enumerate(tokens))  # type: ignore[assignment]
        return torch.stack(scores, dim=1)  # type: ignore[arg-type]

    def mask_slots(self, row: list[int], count: int) -> list[int]:
        """Positions of the prompt's mask tokens."""
        found = [i for i, token in enumerate(row) if token == self.tokenizer.mask_token_id]
        if len(found) != count:
            raise InputError("texts", f"a text with {self.tokenizer.mask_token}", "texts without mask tokens")
        return found

    def logits(self, texts: Sequence[str]) -> Tensor:
        scores = self.word_scores(texts)
        columns = []
        for index in range(len(self.labels)):
            own = scores[:, [p for p, (label, _) in enumerate(self.words) if label == index]]
            columns.append(own.logsumexp(1) - torch.tensor(float(own.shape[1])).log())
        return torch.stack(columns, dim=1) - self.prior

    def calibrate(self, texts: Sequence[str] = CONTENT_FREE) -> None:
        """Subtract from now on the mean scores of ``texts`` that say nothing (Zhao et al. 2021)."""
        self.prior.zero_()
        training = self.training
        self.eval()
        with torch.no_grad():
            self.prior.copy_(self.logits(texts).log_softmax(-1).mean(0))
        self.train(training)


class HeadClassifier(Classifier):
    """A new linear head on the pooled last hidden states.

    ``pooling``: "mean" over the text's tokens, "cls" the first token, "last" the text's last token.
    """

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
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(model.config.hidden_size, len(self.labels))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.train(model.training)

    def logits(self, texts: Sequence[str]) -> Tensor:
        return self.head(self.dropout(self.features(texts)))

    def features(self, texts: Sequence[str]) -> Tensor:
        """(batch, hidden width)."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        ids, mask = self.pad([list(row) for row in encoded.input_ids])
        hidden = self.model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "mean":
            weights = mask[..., None].to(hidden.dtype)
            return (hidden * weights).sum(1) / weights.sum(1)
        slot = mask.sum(1) - 1 if self.pooling == "last" else torch.zeros_like(mask[:, 0])
        return hidden[torch.arange(len(ids), device=self.device), slot]
