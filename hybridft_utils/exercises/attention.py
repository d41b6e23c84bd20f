"""Exercises on attention, alone and with a prefix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .answers import check

OFF = -math.inf


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d_k)) V over what ``visible`` (queries, keys) allows."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if visible is not None:
        scores = scores.masked_fill(~visible, OFF)
    return scores.softmax(-1) @ value


def attention(mine: Any) -> None:
    """``mine(query, key, value, causal) -> output``: scaled dot-product attention.

    query and key are (..., T, d_k), value is (..., T, d_v), causal is True or False; the output is (..., T, d_v).
    With causal True, position t sees the positions up to and including t.
    """
    for shape in ((5, 4), (2, 3, 5, 4)):
        query, key = torch.randn(2, *shape).mul(2)
        value = torch.randn(*shape[:-1], 6)
        length = shape[-2]
        past = torch.ones(length, length, dtype=torch.bool).tril()
        strictly = past.tril(-1) | torch.eye(length, dtype=torch.bool).logical_and(torch.arange(length) == 0)
        for causal in (False, True):
            visible = past if causal else None
            scores = query @ key.mT / 2
            weights = scores.masked_fill(~past, OFF).softmax(-1) if causal else scores.softmax(-1)
            mistakes = {
                "the scores are not divided by the square root of d_k": attend(
                    2 * query, key, value, visible
                ),
                "the scores are divided by d_k, not by its square root": attend(
                    query / 2, key, value, visible
                ),
                "the scores are divided by the square root of value's width, not of query's": attend(
                    query * 2 / math.sqrt(6), key, value, visible
                ),
                "the causal mask is missing": attend(query, key, value),
                "it masks although causal is False": attend(query, key, value, past),
                "the mask is transposed: each position sees the later ones": attend(
                    query, key, value, past.mT
                ),
                "each position must also see itself": attend(query, key, value, strictly),
                "the mask multiplies the weights after the softmax, so that they do not sum to 1": (
                    scores.softmax(-1) * past
                )
                @ value,
                "masked scores are set to 0, which exp makes 1: set them to minus infinity": (
                    scores * past
                ).softmax(-1)
                @ value,
                "the softmax goes over the queries; each query's weights over the keys must sum to 1": (
                    scores.masked_fill(~past, OFF) if causal else scores
                ).softmax(-2)
                @ value,
                "queries and keys have changed places": attend(key, query, value, visible),
                "the softmax is missing": (scores * past if causal else scores) @ value,
                "the weights are transposed before they meet the values": weights.mT @ value,
            }
            inputs = {"query": query, "key": key, "value": value, "causal": causal}
            check(mine, inputs, attend(query, key, value, visible), mistakes)
