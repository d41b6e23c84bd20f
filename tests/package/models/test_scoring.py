"""Scores against one forward pass a text; sampling against transformers' own."""

import json
import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast, GenerationConfig, TopPLogitsWarper

from hybridft_utils import InputError
from hybridft_utils.models import scoring
from hybridft_utils.models.scoring import (
    bits_and_characters,
    bits_per_character,
    encode,
    next_token_distribution,
    perplexity,
    ratio_estimate,
    sample,
    token_log_probabilities,
)

TEXTS = [
    "I loved it.",
    "No.",
    "A long and rather dull evening, to be honest, with two good songs.",
    "naïve 😀 café",
]


@torch.no_grad()
def slow(model, tokenizer, text):
    """log p of each token, one forward pass for each of them."""
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    passes = [
        model(torch.tensor([ids[:t]])).logits[0, -1].log_softmax(-1)[ids[t]] for t in range(1, len(ids))
    ]
    return torch.stack(passes)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batched_and_padded_is_one_text_at_a_time(llama, tokenizer, batch_size):
    got = token_log_probabilities(llama, tokenizer, TEXTS, batch_size=batch_size)
    for text, row in zip(TEXTS, got, strict=True):
        torch.testing.assert_close(row, slow(llama, tokenizer, text), rtol=1e-5, atol=1e-5)


def test_sum_is_the_models_own_loss(llama, tokenizer):
    ids = tokenizer(TEXTS[2], return_tensors="pt").input_ids
    loss = llama(ids, labels=ids).loss.item()
    (row,) = token_log_probabilities(llama, tokenizer, [TEXTS[2]])
    assert -row.sum().item() == pytest.approx(loss * (ids.shape[1] - 1), rel=1e-5)
    assert perplexity(llama, tokenizer, [TEXTS[2]]) == pytest.approx(math.exp(loss), rel=1e-5)


def test_perplexity_of_uniform_predictions_is_the_vocabularys_size(llama, tokenizer):
    for p in llama.parameters():
        p.data.zero_()
    assert perplexity(llama, tokenizer, TEXTS) == pytest.approx(8192, rel=1e-4)
    bits, characters = bits_and_characters(llama, tokenizer, TEXTS)
    np.testing.assert_allclose(bits, [13 * len(slow(llama, tokenizer, t)) for t in TEXTS], rtol=1e-5)
    assert characters.tolist() == [len(t) for t in TEXTS]
    assert bits_per_character(llama, tokenizer, TEXTS) == pytest.approx(bits.sum() / sum(map(len, TEXTS)))


def test_max_tokens_cuts_tokens_and_characters_together(llama, tokenizer):
    text = "I loved it. All of it, twice."
    pieces = [text[:end] for _, end in tokenizer(text, return_offsets_mapping=True).offset_mapping[1:]]
    for kept, piece in enumerate(pieces, start=1):
        (ids,), (characters,) = encode(tokenizer, [text], max_tokens=kept)
        assert len(ids) == kept + 1 and characters == len(piece)
        (row,) = token_log_probabilities(llama, tokenizer, [text], max_tokens=kept)
        torch.testing.assert_close(row, slow(llama, tokenizer, text)[:kept], rtol=1e-5, atol=1e-5)


def test_texts_that_cannot_be_scored_are_refused(llama, bert, tokenizer):
    with pytest.raises(InputError, match="empty text at index 1"):
        token_log_probabilities(llama, tokenizer, ["fine", ""])
    with pytest.raises(InputError, match=r"a text of 80 tokens.*at most 63 tokens"):
        token_log_probabilities(llama, tokenizer, ["good " * 79 + "good"])
    with pytest.raises(InputError, match="model: got 'BertForMaskedLM'; accepted: a causal language model"):
        token_log_probabilities(bert, tokenizer, ["fine"])
    with pytest.raises(InputError, match="texts: got 'none'"):
        bits_per_character(llama, tokenizer, [])


def test_a_tokenizer_without_a_start_token_starts_with_the_end_of_text(tokenizer, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nno\n.\n")
    other = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    with pytest.raises(InputError, match="the tokenizer of a causal language model"):
        encode(other, ["no."])
    other.eos_token = "[SEP]"
    assert encode(other, ["no."])[0][0][0] == other.eos_token_id


def test_ratio_estimate_covers_the_ratio_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        below = rng.integers(20, 200, size=150)
        above = below * rng.normal(1.5, 0.4, size=150)
        found = ratio_estimate(above, below, resamples=400, seed=trial)
        assert found.mean == pytest.approx(above.sum() / below.sum())
        covered += found.low < 1.5 < found.high
    assert 0.88 < covered / 200 < 0.99


logits_drawn = st.lists(st.floats(-8, 8), min_size=2, max_size=30).map(torch.tensor)


@given(logits_drawn, st.floats(0.1, 5), st.floats(0.01, 1))
def test_nucleus_is_the_smallest_set_that_reaches_top_p(logits, temperature, top_p):
    whole = (logits / temperature).softmax(-1)
    p = next_token_distribution(logits, temperature, top_p)
    kept = p > 0
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(p[kept], whole[kept] / whole[kept].sum(), rtol=1e-4, atol=1e-6)
    assert whole[kept].sum() >= top_p - 1e-5
    assert whole[kept].sum() - whole[kept].min() < top_p + 1e-5
    assert kept.all() or whole[kept].min() >= whole[~kept].max()


def test_nucleus_is_the_one_of_transformers():
    torch.manual_seed(0)
    for top_p in (0.1, 0.5, 0.9, 0.999):
        logits = 3 * torch.randn(500)
        theirs = TopPLogitsWarper(top_p)(None, logits[None] / 0.7).softmax(-1)[0]
        torch.testing.assert_close(next_token_distribution(logits, 0.7, top_p), theirs, rtol=1e-5, atol=1e-7)


def test_temperature_zero_is_greedy_and_bad_values_are_refused():
    assert next_token_distribution(torch.tensor([0.0, 2.0, 1.0]), temperature=0).tolist() == [0, 1, 0]
    for name, value in {"temperature": -1, "top_p": 0.0}.items():
        with pytest.raises(InputError, match=f"{name}: got {value}"):
            next_token_distribution(torch.zeros(3), **{name: value})


def test_greedy_sample_is_generate(llama, tokenizer):
    ids = tokenizer("I loved", return_tensors="pt").input_ids
    greedy = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=1, pad_token_id=0)
    theirs = llama.generate(ids, generation_config=greedy)[0, 1:]
    got = sample(llama, tokenizer, "I loved", max_new_tokens=12, temperature=0)
    assert got == tokenizer.decode(theirs, skip_special_tokens=True).strip()


def test_sample_follows_its_seed_and_stops_at_the_end_and_at_the_context(llama, tokenizer):
    texts = [sample(llama, tokenizer, "I loved", 10, seed=s) for s in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    passes = []
    llama.register_forward_hook(lambda *_: passes.append(1))
    sample(llama, tokenizer, "No.", max_new_tokens=500)
    assert len(passes) == 64 - len(tokenizer("No.").input_ids)
    assert sample(llama, tokenizer, "No.", max_new_tokens=0) == "no."

    class AlwaysTheEnd(torch.nn.Module):
        def forward(self, hidden):
            return torch.nn.functional.one_hot(torch.ones(hidden.shape[:2]).long(), 8192).float() * 100

    llama.lm_head = AlwaysTheEnd()
    assert sample(llama, tokenizer, "No.") == "no."


@pytest.fixture
def small_imdb(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "IMDB_REVIEWS", 5)
    monkeypatch.setattr(scoring, "IMDB_TEST_SPLIT", 20)
    rows = pd.DataFrame({"text": [f"Film {i}<br /><br />GOOD  fun" for i in range(20)], "label": [0, 1] * 10})
    for split in ("train", "test"):
        rows.to_parquet(tmp_path / f"{split}.parquet")
    return tmp_path


def test_command_writes_the_value_with_interval_and_provenance(
    small_imdb, monkeypatch, tmp_path, llama, tokenizer
):
    model = tmp_path / "model"
    llama.save_pretrained(model)
    tokenizer.save_pretrained(model)
    out = tmp_path / "out" / "bits.json"
    command = ["language_model", "--model", str(model), "--data", str(small_imdb), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    scoring.main()
    found = json.loads(out.read_text())
    chosen = sorted(np.random.default_rng(0).choice(20, 5, replace=False))
    expected = bits_per_character(llama, tokenizer, [f"film {i} good fun" for i in chosen])
    assert found["bits_per_character"] == pytest.approx(expected, rel=1e-6)
    assert found["interval"][0] <= expected <= found["interval"][1]
    assert found["characters"] == sum(len(f"film {i} good fun") for i in chosen)
    assert (
        found["model"] == "model"
        and found["data"]["test"]["rows"] == 5
        and found["provenance"]["commit"] is not None
    )


def test_command_refuses_other_data_in_one_sentence_and_writes_nothing(small_imdb, monkeypatch, tmp_path):
    monkeypatch.setattr(scoring, "IMDB_TEST_SPLIT", 25_000)
    out = tmp_path / "bits.json"
    monkeypatch.setattr(sys, "argv", ["language_model", "--data", str(small_imdb), "--out", str(out)])
    with pytest.raises(SystemExit, match=r"with 20 test reviews.*accepted: IMDB, with 25000"):
        scoring.main()
    assert not out.exists()
