"""Exercises on attention, alone and with a prefix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .answers import check

OFF = -math.inf

Pair = tuple[Tensor, Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d_k)) V over what ``visible`` (queries, keys) allows."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if visible is not None:
        scores = scores.masked_fill(~visible, OFF)
    return scores.softmax(-1) @ value


def attention(mine: Any) -> None:
    """``mine(query, key, value, causal) -> output``: scaled dot-product attention.

    query and key are (..., T, d_k), value is (..., T, d_v), causal is True or False; the output is
    (..., T, d_v).  With causal True, position t sees the positions up to and including t.
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


def prefix_attention(mine: Any) -> None:
    """``mine(q, k, v, prefix_k, prefix_v, mask) -> output``: attention with trained keys and values in front.

    q, k and v are (batch, T, d), the prefix's keys and values (n, d), the same for every text; mask is
    boolean (batch, T, T), True where a query may see a key of the text.  Every query sees the whole prefix,
    and one softmax goes over prefix and text together; the output is (batch, T, d).
    """
    q, k, v = (torch.randn(2, 5, 4).mul(2) for _ in range(3))
    prefix_k, prefix_v = torch.randn(2, 3, 4).mul(2)
    mask = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    mask[1, :, 4] = False
    mask[1, 4, 4] = True
    front = torch.ones(2, 5, 3, dtype=torch.bool)
    first_k, first_v = prefix_k.expand(2, -1, -1), prefix_v.expand(2, -1, -1)

    def joined(front: Tensor, scale: float = 1.0, keys: Tensor = first_k, values: Tensor = first_v) -> Tensor:
        visible = torch.cat([front, mask], 2)
        return attend(q * scale, torch.cat([keys, k], 1), torch.cat([values, v], 1), visible)

    alone, text = attend(q, first_k, first_v), attend(q, k, v, mask)
    behind = torch.cat([k, first_k], 1), torch.cat([v, first_v], 1)
    mistakes = {
        "the prefix has no effect: it is left out or masked away": text,
        "the text is missing": alone,
        "the scores are not divided by the square root of d": joined(front, 2),
        "the mask of the text is missing": attend(q, torch.cat([first_k, k], 1), torch.cat([first_v, v], 1)),
        "each query sees only as much of the prefix as of the text: the mask was shifted, not extended": attend(
            q,
            torch.cat([first_k, k], 1),
            torch.cat([first_v, v], 1),
            torch.ones(2, 5, 8, dtype=torch.bool).tril(),
        ),
        "the mask was extended on the other side than keys and values": attend(
            q, *behind, torch.cat([front, mask], 2)
        ),
        "prefix and text have a softmax each; one softmax goes over both": text + alone,
        "the mean of two attentions is not one softmax over both": (text + alone) / 2,
        "the prefix's keys stand where its values belong": joined(front, values=first_k),
        "the prefix's keys and values have changed places": joined(front, keys=first_v, values=first_k),
    }
    inputs = {"q": q, "k": k, "v": v, "prefix_k": prefix_k, "prefix_v": prefix_v, "mask": mask}
    check(mine, inputs, joined(front), mistakes)


def hybrid_layer(mine: Any) -> None:
    """``mine(h, W_q, W_k, W_v, lora_q, lora_v, scale, prefix_k, prefix_v) -> output``: a hybrid head.

    h is (batch, T, d), the weights are (d_k, d); lora_q and lora_v are pairs (A: (r, d), B: (d_k, r)) whose
    product scale * B A is added to W_q and W_v.  The prefix's keys and values are (n, d_k), seen by every
    position and not touched by LoRA; the text is causal.  The output is (batch, T, d_k).
    """
    h = torch.randn(2, 5, 6)
    weights = [torch.randn(4, 6) for _ in range(3)]
    lora_q, lora_v = ((torch.randn(2, 6), torch.randn(4, 2)) for _ in range(2))
    prefix_k, prefix_v = torch.randn(2, 3, 4).mul(2)
    scale = 0.5

    def head(
        on_q: Pair | None = lora_q,
        on_k: Pair | None = None,
        on_v: Pair | None = lora_v,
        scale: float = scale,
        past: bool = True,
        front: bool = True,
        times: float = 1.0,
    ) -> Tensor:
        """One head with LoRA on the query, key and value; ``front`` False leaves the prefix out."""
        pairs = zip(weights, (on_q, on_k, on_v), strict=True)
        q, k, v = (h @ (w + scale * pair[1] @ pair[0] if pair else w).T for w, pair in pairs)
        visible = torch.ones(5, 5, dtype=torch.bool)
        visible = visible.tril() if past else visible
        if front:
            k = torch.cat([prefix_k.expand(2, -1, -1), k], 1)
            v = torch.cat([prefix_v.expand(2, -1, -1), v], 1)
            visible = torch.cat([torch.ones(5, 3, dtype=torch.bool), visible], 1)
        return attend(q * times, k, v, visible)

    mistakes = {
        "LoRA is missing": head(scale=0),
        "LoRA's scale is missing": head(scale=1),
        "the query has no LoRA": head(on_q=None),
        "the value has no LoRA": head(on_v=None),
        "LoRA sits on the key, not on the value": head(on_k=lora_v, on_v=None),
        "the two LoRA pairs have changed places": head(on_q=lora_v, on_v=lora_q),
        "the prefix has no effect: it is left out or masked away": head(front=False),
        "the causal mask is missing": head(past=False),
        "the scores are not divided by the square root of d_k": head(times=2),
    }
    inputs = dict(zip(("W_q", "W_k", "W_v"), weights, strict=True))
    given = {"h": h, **inputs, "lora_q": lora_q, "lora_v": lora_v, "scale": scale}
    case = "for h of shape (2, 5, 6), weights of shape (4, 6), LoRA of rank 2 and a prefix of length 3"
    check(mine, {**given, "prefix_k": prefix_k, "prefix_v": prefix_v}, head(), mistakes, case)
