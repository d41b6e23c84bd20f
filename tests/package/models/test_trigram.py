"""The character trigram: a distribution, and the counts where there is nothing to smooth."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from hybridft_utils.models.corpus import held_out_part
from hybridft_utils.models.trigram import Trigram, fit, main
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


def test_the_command_scores_model_and_trigram_on_the_same_characters(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("好坏房间早餐服务手机"), 30)) for _ in range(400)]
    sources = []
    for name, part in (("one", texts[:200]), ("other", texts[200:])):
        (tmp_path / name).mkdir()
        sources.append(str(tmp_path / name / "reviews.csv"))
        pd.DataFrame({"label": [0, 1] * 100, "review": part}).to_csv(sources[-1], index=False)
    tokenizer = characters(texts, 300)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path / "model")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    uniform = LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=64, **sizes))
    uniform.lm_head.weight.data.zero_()
    uniform.save_pretrained(tmp_path / "model")
    out = tmp_path / "bits.json"
    command = ["trigram", "--model", str(tmp_path / "model"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*command, "--data", *sources, "--hold_out", *sources])
    main()
    found = json.loads(out.read_text())["held_out"]
    assert set(found) == {"one/reviews.csv", "other/reviews.csv"}
    for source, row in zip(sources, found.values(), strict=True):
        held = held_out_part(source)
        assert row["texts"] == len(held) and row["characters"] == sum(map(len, held)) and row["unknown"] == 0
        assert row["model"]["mean"] == pytest.approx(np.log2(300), rel=1e-4)
        assert row["trigram"]["mean"] < 5 and row["ratio"]["low"] > 1
