"""The character trigram: a distribution, and the counts where there is nothing to smooth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridft_utils.models.trigram import Trigram, fit
from hybridft_utils.models.vocabulary import characters

START = 1
texts_drawn = st.lists(st.lists(st.integers(2, 7), min_size=1, max_size=12), min_size=1, max_size=8)


def rows_of(texts):
    return [np.array([START, *text]) for text in texts]


@given(texts_drawn, st.lists(st.integers(1, 7), min_size=2, max_size=2), st.sampled_from([0.5, 0.9]))
def test_probabilities_sum_to_one(texts, context, discount):
    trigram = Trigram(rows_of(texts), 8)
    trigram.discounts = (discount,) * 3
    p = [2 ** -trigram.bits(np.array([START, *context, c]))[-1] for c in range(8)]
    assert sum(p) == pytest.approx(1) and min(p) > 0


@given(texts_drawn)
def test_without_discounts_it_is_the_counts(texts):
    trigram = Trigram(rows_of(texts), 8)
    trigram.discounts = (0.0, 0.0, 0.0)
    padded = [[START, START, *text] for text in texts]
    triples = [tuple(row[i : i + 3]) for row in padded for i in range(len(row) - 2)]
    pairs = [triple[:2] for triple in triples]
    for text, row in zip(texts, rows_of(texts), strict=True):
        own = [START, START, *text]
        counted = [
            triples.count(tuple(own[i : i + 3])) / pairs.count(tuple(own[i : i + 2]))
            for i in range(len(text))
        ]
        np.testing.assert_allclose(2 ** -trigram.bits(row), counted)


def test_tuning_and_context_help():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.permutation(["房间好", "早餐差", "服务好", "很吵闹"])) for _ in range(200)]
    tokenizer = characters(texts, 300)
    trigram = fit(tokenizer, texts, validation=40)
    row = np.array(tokenizer("早餐差服务好").input_ids)
    assert trigram.bits(row).mean() < 1.5 < np.log2(len(tokenizer))
    before = trigram.bits(row).sum()
    trigram.discounts = (0.5, 0.5, 0.01)
    assert trigram.bits(row).sum() != before
