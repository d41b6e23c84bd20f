"""An exercise on what a classifier makes of a language model's logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .answers import check

Words = list[list[int]]


def label_scores(log_p: Tensor, words: Words) -> Tensor:
    """The logarithm of the mean probability of each label's words: (batch, vocabulary) to (batch, labels)."""
    return torch.stack([log_p[:, own].exp().mean(1).log() for own in words], 1)


def label_probabilities(mine: Any) -> None:
    """``mine(logits: (batch, V), words, neutral: (n, V)) -> (batch, labels)``: calibrated probabilities.

    ``logits`` are those at the label's place of a batch of prompts, ``words`` holds for each label the
    indices of its words, and ``neutral`` are the logits of n prompts around texts that say nothing.  A
    label's score is the logarithm of the mean probability of its words.  The prior, which is subtracted, is
    the mean over the neutral prompts of the logarithm of the labels' probabilities.
    """
    words = [[1, 4, 6], [2], [0, 5]]
    logits, neutral = 2 * torch.randn(4, 8), 2 * torch.randn(3, 8)
    scores = label_scores(logits.log_softmax(1), words)
    said_nothing = label_scores(neutral.log_softmax(1), words)
    prior = said_nothing.log_softmax(1).mean(0)
    # The same slip in the scores and in the prior.
    means, neutral_means = (torch.stack([z[:, own].mean(1) for own in words], 1) for z in (logits, neutral))
    firsts, neutral_firsts = (z[:, [own[0] for own in words]] for z in (logits, neutral))
    right = (scores - prior).softmax(1)
    mistakes = {
        "the prior of texts that say nothing is not subtracted": scores.softmax(1),
        "the prior is added; subtract it": (scores + prior).softmax(1),
        "the mean goes over the words' logits; take it over their probabilities": (
            means - neutral_means.log_softmax(1).mean(0)
        ).softmax(1),
        "only the first word of each label counts": (firsts - neutral_firsts.log_softmax(1).mean(0)).softmax(
            1
        ),
        "these are the calibrated scores; a softmax over the labels is missing": scores - prior,
        "these are logarithms of the probabilities": (scores - prior).log_softmax(1),
        "the softmax goes over the batch; each row is one prompt": (scores - prior).softmax(0),
        "the prior is the logarithm of the mean probability; take the mean of the logarithms": (
            scores - said_nothing.softmax(1).mean(0).log()
        ).softmax(1),
    }
    check(mine, {"logits": logits, "words": words, "neutral": neutral}, right, mistakes)
