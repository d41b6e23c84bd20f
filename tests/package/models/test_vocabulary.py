"""Character-level tokenizers: one token per character, usable in prompts."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from hybridft_utils import PromptClassifier, PromptTemplate, Verbalizer, load_base
from hybridft_utils.models.vocabulary import START, UNKNOWN, byte_pairs, characters

TEXTS = [
    "房间很好，服务不错！wifi 快",
    "早餐太差……（不会再来）",
    "这段文字的情感是负面。",
    "这段文字的情感是正面。",
]


def test_one_token_for_each_character():
    tokenizer = characters(TEXTS, 300)
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert tokenizer.convert_ids_to_tokens(ids) == [START, *text]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


known = set("".join(TEXTS))


@given(st.text(st.characters(codec="utf-8")))
def test_unknown_characters_are_one_token_each(text):
    tokenizer = characters(TEXTS, 300)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
    lowered = "".join(c.lower() for c in text)
    assert tokens == [c if c in known else UNKNOWN for c in lowered]


def test_the_vocabulary_holds_the_most_frequent_characters():
    tokenizer = characters(["好好好好", "坏坏坏", "中中", "一"], 5)
    assert set(tokenizer.get_vocab()) == {"<pad>", START, UNKNOWN, "好", "坏"}
    assert characters(TEXTS, 300).get_vocab() == characters(TEXTS, 300).get_vocab()


def test_offsets_are_those_of_the_text():
    text = "WiFi很快，😀！"
    found = characters(TEXTS, 300)(text, add_special_tokens=False, return_offsets_mapping=True)
    assert found.offset_mapping == [(i, i + 1) for i in range(len(text))]


@pytest.mark.parametrize("text", ["", "房间很好，", "😀" * 5, "WiFi\n很快", "好" * 200])
def test_a_prompt_classifier_reads_it(text, tmp_path: Path):
    tokenizer = characters(TEXTS, 300)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=64, **sizes)).save_pretrained(
        tmp_path
    )
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path)
    template = PromptTemplate("{text} 这段文字的情感是{label}。")
    words = Verbalizer({"negative": ["负面"], "positive": ["正面"]})
    classifier = PromptClassifier(*load_base(tmp_path), template, words)
    assert [len(tokens) for _, tokens in classifier.words] == [2, 2]
    assert classifier.logits([text]).isfinite().all()


def test_byte_pairs_hold_every_byte():
    tokenizer = byte_pairs(["the film was good"] * 3, 300)
    assert tokenizer.decode(tokenizer("naïve 😀").input_ids, skip_special_tokens=True).strip() == "naïve 😀"
