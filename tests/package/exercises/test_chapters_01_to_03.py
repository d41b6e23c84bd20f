"""The graders of chapters 01 to 03 accept right answers and tell typical wrong ones apart."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybridft_utils import check_mine


def join(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    """Right, by another way than the grader's."""
    result: list[str] = []
    rest = list(tokens)
    while rest:
        if tuple(rest[:2]) == pair:
            result.append(rest.pop(0) + rest.pop(0))
        else:
            result.append(rest.pop(0))
    return result


def appends(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    return [
        pair[0] + pair[1] if (a, b) == pair else a for a, b in zip(tokens, [*tokens[1:], ""], strict=True)
    ]


def stops_early(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    result, i = [], 0
    while i < len(tokens) - 1:
        hit = (tokens[i], tokens[i + 1]) == pair
        result.append(tokens[i] + tokens[i + 1] if hit else tokens[i])
        i += 1 + hit
    return result


def once(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    for i in range(len(tokens) - 1):
        if (tokens[i], tokens[i + 1]) == pair:
            return [*tokens[:i], "".join(pair), *tokens[i + 2 :]]
    return tokens


def backwards(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    result = list(tokens)
    for i in reversed(range(len(tokens) - 1)):
        if tuple(result[i : i + 2]) == pair:
            result[i : i + 2] = ["".join(pair)]
    return result


def in_place(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    tokens[:] = join(tokens, pair)
    return tokens


def by_text(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    return " ".join(tokens).replace(" ".join(pair), "".join(pair)).split(" ")


def delta(z: Tensor, y: Tensor) -> Tensor:
    return z.softmax(1) - F.one_hot(y, z.shape[1])


def unstable(z: Tensor, y: Tensor) -> Tensor:
    return (z.exp() / z.exp().sum(1, keepdim=True) - F.one_hot(y, z.shape[1])) / len(y)


def overwriting(z: Tensor, y: Tensor) -> Tensor:
    p = z.softmax(1)
    z.copy_(p)
    return delta(z.log(), y) / len(y)


def attention(q, k, v, causal, scale=0.5, diagonal=0, axis=-1, fill=-math.inf):
    scores = q @ k.mT * scale
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1 + diagonal).bool(), fill)
    return scores.softmax(axis) @ v


def after(q, k, v, causal):
    weights = (q @ k.mT / 2).softmax(-1)
    return (weights.tril() if causal else weights) @ v


def transposed(q, k, v, causal):
    scores = q @ k.mT / 2
    return (
        scores.masked_fill(torch.ones_like(scores).tril(-1).bool(), -math.inf) if causal else scores
    ).softmax(-1) @ v


def only_matrices(q, k, v, causal):
    return attention(q, k.t().mT, v, causal)


RIGHT = [
    ("01.bpe_merge", join),
    ("02.cross_entropy_gradient", lambda z, y: delta(z, y) / len(y)),
    (
        "02.cross_entropy_gradient",
        lambda z, y: torch.func.grad(lambda logits: F.cross_entropy(logits, y))(z),
    ),
    ("03.attention", attention),
    ("03.attention", lambda q, k, v, causal: F.scaled_dot_product_attention(q, k, v, is_causal=causal)),
]
WRONG = [
    ("01.bpe_merge", once, "merges the first occurrence only"),
    ("01.bpe_merge", backwards, "goes from right to left"),
    ("01.bpe_merge", appends, "the second token of a merged pair stays"),
    ("01.bpe_merge", stops_early, "the last token is lost"),
    ("01.bpe_merge", in_place, "changes its input tokens"),
    ("01.bpe_merge", by_text, "for tokens ['t', 'h', 'e', ' ', 't', 'h'], pair ('t', 'h') it returns"),
    ("01.bpe_merge", lambda tokens, pair: tokens, "it merges nothing"),
    ("01.bpe_merge", lambda tokens, pair: "".join(tokens), "not a list of strings"),
    ("02.cross_entropy_gradient", delta, "gradient of the sum"),
    (
        "02.cross_entropy_gradient",
        lambda z, y: z.softmax(1) / len(y),
        "one-hot vector of the true class is missing",
    ),
    ("02.cross_entropy_gradient", lambda z, y: -delta(z, y) / len(y), "the sign is turned round."),
    (
        "02.cross_entropy_gradient",
        lambda z, y: (z.softmax(0) - F.one_hot(y, z.shape[1])) / len(y),
        "the softmax goes over the batch",
    ),
    ("02.cross_entropy_gradient", lambda z, y: delta(z, y) / z.numel(), "the mean goes over all entries"),
    ("02.cross_entropy_gradient", unstable, "for logits as large as 1000 it returns NaN"),
    ("02.cross_entropy_gradient", overwriting, "it changes its input z"),
    (
        "02.cross_entropy_gradient",
        lambda z, y: delta(z, y).mT / len(y),
        "it returns shape (5, 4), not (4, 5)",
    ),
    ("02.cross_entropy_gradient", lambda z, y: z.argmax(1, keepdim=True).expand(z.shape), "torch.int64"),
    ("03.attention", lambda *given: attention(*given, scale=1), "not divided by the square root of d_k"),
    ("03.attention", lambda *given: attention(*given, scale=1 / 4), "divided by d_k, not by its square root"),
    ("03.attention", lambda q, k, v, c: attention(q, k, v, c, v.shape[-1] ** -0.5), "value's width"),
    ("03.attention", lambda q, k, v, causal: attention(q, k, v, False), "causal True it differs"),
    ("03.attention", lambda q, k, v, causal: attention(q, k, v, False), "the causal mask is missing"),
    ("03.attention", lambda q, k, v, causal: attention(q, k, v, True), "it masks although causal is False"),
    ("03.attention", lambda *given: attention(*given, axis=-2), "the softmax goes over the queries"),
    ("03.attention", lambda *given: attention(*given, fill=0), "masked scores are set to 0"),
    ("03.attention", lambda *given: attention(*given, diagonal=-1), "NaN"),
    ("03.attention", after, "the mask multiplies the weights after the softmax"),
    ("03.attention", transposed, "the mask is transposed"),
    ("03.attention", lambda q, k, v, c: attention(k, q, v, c), "queries and keys have changed places"),
    ("03.attention", only_matrices, "for query of shape (2, 3, 5, 4)"),
]


@pytest.mark.parametrize(("name", "mine"), RIGHT)
def test_right(name: str, mine: object) -> None:
    grade = check_mine(name, mine)
    assert grade, grade


@pytest.mark.parametrize(
    ("name", "mine", "said"), WRONG, ids=lambda value: re.sub(r"<.*", "", str(value))[:40]
)
def test_wrong(name: str, mine: object, said: str) -> None:
    grade = check_mine(name, mine)
    assert not grade and said in repr(grade), grade
