r"""Soft prompt (prompt tuning): trained vectors in front of the input's embeddings (Lester et al. 2021).

.. math:: [P; E(x)] \in \mathbb{R}^{(n + T) \times d}

The rows of the n prompt vectors are cut off again after the inner model
(:mod:`hybridft_utils.methods.input_hook`).  So logits, labels and a classifier's pooling see the T positions
of the text and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from .architectures import join
from .parts import Host, Method, Part, check_choice, check_whole, place


class SoftPromptVectors(nn.Module):
    """The trained vectors, ``embeddings`` (prompt length, hidden width)."""

    def __init__(self, length: int, width: int, std: float = 0.02):
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(length, width) * std)

    def forward(self, embedded: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, length + tokens, width)."""
        front = self.embeddings.to(embedded.dtype).expand(embedded.shape[0], -1, -1)
        return torch.cat([front, embedded], dim=1)


@dataclass(frozen=True)
class SoftPrompt(Method):
    """``length`` trained vectors at the input.

    ``init``: "random" (of the embeddings' size), "vocab" (embeddings of random words of the
    vocabulary) or "task" (embeddings of the task's text).
    """

    length: int = 16
    init: Literal["random", "vocab", "task"] = "vocab"
    kind: ClassVar[str] = "prompt"

    def __post_init__(self) -> None:
        check_whole("prompt_length", self.length)
        check_choice("init", self.init, "random", "vocab", "task")

    def parts(self, host: Host) -> list[Part]:
        host.check_length("prompt_length", self.length)
        inner = host.inner
        words: Tensor = inner.get_input_embeddings().weight.data  # type: ignore[assignment]
        vectors = SoftPromptVectors(self.length, words.shape[1], std=words.std().item())
        if self.init != "random":
            vectors.embeddings.data = words[host.start_ids(self.init, self.length).to(words.device)]
        place(vectors, words)

        def put() -> None:
            inner.add_module("soft_prompt", vectors)

        def take() -> None:
            del inner._modules["soft_prompt"]

        return [Part(self.kind, join(host.inner_path, "soft_prompt"), vectors, put, take)]
