"""What is measured: models of several shapes, reviews, and the methods with their counterparts in PEFT."""

from __future__ import annotations

from functools import cache
from typing import Any

import peft
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hybridft_utils import (
    Adapter,
    FullFineTuning,
    LoRA,
    Prefix,
    PromptClassifier,
    PromptTemplate,
    SoftPrompt,
    Verbalizer,
    load_reviews,
)
from hybridft_utils.files import ASSETS
from hybridft_utils.methods.parts import Method

VOCABULARY = 8200  # the shipped tokenizer's 8,192 words and room for a mask
METHODS: dict[str, tuple[Method, ...]] = {
    "full": (FullFineTuning(),),
    "lora": (LoRA(),),
    "prefix": (Prefix(),),
    "prompt": (SoftPrompt(),),
    "adapter": (Adapter(),),
    "lora+prefix": (LoRA(), Prefix()),
}
FAMILIES = ("gpt2", "llama", "bert")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The shipped tokenizer with a mask token."""
    made = PreTrainedTokenizerFast.from_pretrained(ASSETS / "movies")
    made.add_special_tokens({"mask_token": "<mask>"})
    return made


def model(family: str, width: int, layers: int, attention: str = "sdpa") -> PreTrainedModel:
    """An untrained model of ``family``'s shape; heads are 64 wide.  ``attention`` is sdpa or eager."""
    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": VOCABULARY, "attn_implementation": attention}
    common |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    sizes: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "max_position_embeddings": 512,
    }
    if family == "gpt2":
        names = {"n_embd": width, "n_layer": layers, "n_head": width // 64, "n_positions": 512}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**common, **names)).eval()
    if family == "llama":
        sizes |= {"intermediate_size": round(width * 8 / 3), "tie_word_embeddings": True}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common, **sizes)).eval()
    return transformers.BertForMaskedLM(
        transformers.BertConfig(**common, **sizes, intermediate_size=4 * width)
    ).eval()


def classifier(base: PreTrainedModel) -> PromptClassifier:
    """The book's prompt on ``base``."""
    words = Verbalizer({"negative": ["terrible"], "positive": ["great"]})
    return PromptClassifier(base, tokenizer(), PromptTemplate(), words)


def reviews(count: int) -> tuple[list[str], list[int]]:
    """The first ``count`` training reviews of the book, and their labels."""
    rows = load_reviews("builtin:reviews-en")["train"].select(range(count))
    return list(rows["text"]), list(rows["label"])


def peft_config(method: str, task: str | None) -> peft.PeftConfig:
    """PEFT's counterpart of one of :data:`METHODS`, with the same sizes."""
    configs = {
        "lora": lambda: peft.LoraConfig(task_type=task, r=8, lora_alpha=16, target_modules="all-linear"),
        "prefix": lambda: peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=16),
        "prompt": lambda: peft.PromptTuningConfig(task_type=task, num_virtual_tokens=16),
    }
    return configs[method]()
