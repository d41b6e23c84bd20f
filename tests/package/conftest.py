"""Tiny random models with the shipped tokenizer, for tests that need text."""

import os

os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # a Hub that cannot be reached, wherever the tests run

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from hybridft_utils.files import ASSETS


@pytest.fixture(scope="session")
def tokenizer():
    return PreTrainedTokenizerFast.from_pretrained(ASSETS / "movies")


@pytest.fixture(scope="session")
def masked_tokenizer():
    made = PreTrainedTokenizerFast.from_pretrained(ASSETS / "movies")
    made.mask_token = "<mask>"
    made.add_special_tokens({"mask_token": "<mask>"})
    return made


@pytest.fixture
def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=8192, max_position_embeddings=64, **sizes)).eval()


@pytest.fixture
def bert_config():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertConfig(vocab_size=8200, max_position_embeddings=64, **sizes)


@pytest.fixture
def bert(bert_config):
    torch.manual_seed(0)
    return BertForMaskedLM(bert_config).eval()


@pytest.fixture
def encoder(bert_config):
    torch.manual_seed(0)
    return BertModel(bert_config).eval()


@pytest.fixture
def model_folder(llama, tokenizer, tmp_path):
    """A folder as the Hub would give it."""
    folder = tmp_path / "tiny-llama"
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
