"""A prompt with label words: the pretrained model's own head answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..methods.architectures import find_architecture
from .classifier import Classifier, at_least_single
from .template import PromptTemplate
from .verbalizer import Verbalizer

#: Texts without content, whose scores show the label words' prior (Zhao et al. 2021).
CONTENT_FREE = ("N/A", "...", "")


class PromptClassifier(Classifier):
    r"""Scores a label by the probability of its words in the prompt.

    .. math:: s_c(x) = \log \frac{1}{|W_c|} \sum_{w \in W_c} p(w \mid \text{template}(x))

    Causal models read the prompt up to the label and score the label's tokens one after the other;
    masked models see one mask per token and score all at once (PET, Schick and Schütze 2021).  Only
    the label's positions are projected onto the vocabulary.
    """

    kind: ClassVar[str] = "prompt"

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
        # A masked model's prompt holds the label's masks; a causal model's label comes after it.
        self.longest_prompt = self.max_length - (longest if self.causal else 0)
        self.room = self.longest_prompt - len(self.encode("", masks=longest))
        if self.room < 1:
            raise InputError(
                "template", template.pattern, f"a template shorter than {self.max_length} tokens"
            )
        self.prior: Tensor
        self.register_buffer("prior", torch.zeros(len(self.labels)))
        self.train(model.training)  # as the model was given: loaded models are in evaluation mode

    def describe(self) -> dict[str, Any]:
        """The settings; ``prior`` holds what calibration subtracts from each label's score, in nats."""
        return {
            **super().describe(),
            "template": self.template.pattern,
            "label_words": {label: list(words) for label, words in self.verbalizer.words.items()},
            "prior": self.prior.tolist(),
        }

    def word_tokens(self, word: str) -> tuple[int, ...]:
        """The tokens of a label word as they are at its place in the template."""
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
        """The prompts' token ids, with texts cut so that no prompt with its label exceeds ``max_length``."""
        rows = []
        for text in texts:
            row, tokens = self.encode(text, masks), self.room
            while len(row) > self.longest_prompt:
                row = self.encode(self.cut(text, tokens) if tokens > 0 else "", masks)
                # A character may have several tokens, and a text other ones in the template than alone.
                tokens -= max(1, len(row) - self.longest_prompt)
            rows.append(row)
        return rows

    def log_probabilities(self, rows: list[list[int]], slots: Tensor) -> Tensor:
        """Log-probabilities of the vocabulary at ``slots`` (batch, k): (batch, k, vocabulary)."""
        return at_least_single(self.model.get_submodule(self._head)(self.at_slots(rows, slots))).log_softmax(
            -1
        )

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

    def loss(self, texts: Sequence[str], label_indices: Sequence[int] | Tensor) -> Tensor:
        """Mean cross-entropy in nats per text.

        Where every label word is one token, the vocabulary's normaliser is the same for all labels and
        cancels, so only the label words' rows of the output matrix are needed.
        """
        head = self.model.get_submodule(self._head)
        if not self.causal or type(head) is not nn.Linear or any(len(tokens) > 1 for _, tokens in self.words):
            return super().loss(texts, label_indices)
        rows = self.encode_all(texts)
        slots = torch.tensor([[len(row) - 1] for row in rows], device=self.device)
        words = torch.tensor([tokens[0] for _, tokens in self.words], device=self.device)
        bias = None if head.bias is None else head.bias[words]
        scores = at_least_single(F.linear(self.at_slots(rows, slots)[:, 0], head.weight[words], bias))
        target = torch.as_tensor(label_indices, device=self.device)
        return F.cross_entropy(self.label_scores(scores), target)

    def logits(self, texts: Sequence[str]) -> Tensor:
        return self.label_scores(self.word_scores(texts))

    def label_scores(self, scores: Tensor) -> Tensor:
        """Scores of label words (batch, words) to calibrated scores of labels (batch, labels)."""
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
