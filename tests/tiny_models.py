"""Tiny randomly initialised models of every supported architecture, and inputs for them."""

from __future__ import annotations

import copy
from functools import cache

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

VOCABULARY, WIDTH, LAYERS, CONTEXT = 61, 32, 2, 64
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA = {**COMMON, "num_key_value_heads": 2}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BERT = {**COMMON, "type_vocab_size": 2}
#: Name to transformers' configuration class, model class and settings.
KINDS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**COMMON, "tie_word_embeddings": True}),
    "llama-gqa": ("LlamaConfig", "LlamaForCausalLM", LLAMA),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**LLAMA, "sliding_window": None}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", LLAMA),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**LLAMA, "head_dim": 12}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "bert": ("BertConfig", "BertForMaskedLM", BERT),
    "bert-classifier": ("BertConfig", "BertForSequenceClassification", BERT),
    "gpt2-classifier": ("GPT2Config", "GPT2ForSequenceClassification", GPT2),
    "llama-classifier": ("LlamaConfig", "LlamaForSequenceClassification", LLAMA),
}
DECODERS = ("llama", "llama-gqa", "mistral", "qwen2", "qwen3", "gpt2")
CLASSIFIERS = ("bert-classifier", "gpt2-classifier", "llama-classifier")
FAMILIES = ("llama-gqa", "gpt2", "bert")


@cache
def _original(kind: str, dropout: float, wide: bool) -> PreTrainedModel:
    config_class, model_class, settings = KINDS[kind]
    names = {
        "llama": ("attention_dropout",),
        "gpt2": ("attn_pdrop", "resid_pdrop", "embd_pdrop"),
        "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    }
    family = next((f for f in ("gpt2", "bert") if kind.startswith(f)), "llama")
    config = getattr(transformers, config_class)(**settings, **dict.fromkeys(names[family], dropout))
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config)
    if wide:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim > 1 else 0.05))
    return model.eval()


def tiny(kind: str, attention: str = "sdpa", dropout: float = 0.0, wide: bool = True) -> PreTrainedModel:
    """A fresh copy of the tiny model ``kind``, in evaluation mode.

    ``wide`` weights are larger than transformers draws them, so that attention and logits vary more.
    """
    model = copy.deepcopy(_original(kind, dropout, wide))
    model.set_attn_implementation(attention)
    return model


def batch(padding: str = "right", rows: int = 3, tokens: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """Token ids and attention mask; the second row is 4 tokens shorter. "none" leaves the mask out."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=draw)
    mask = torch.ones_like(ids)
    if padding == "none":
        return {"input_ids": ids}
    if rows > 1 and padding != "full":
        mask[1, tokens - 4 :] = 0
        if padding == "left":
            mask = mask.flip(1)
    return {"input_ids": ids * mask, "attention_mask": mask}


def position_ids(mask: Tensor) -> Tensor:
    """Positions that count the tokens that are there."""
    return (mask.cumsum(-1) - 1).clamp_min(0)


def real(logits: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """The logits of tokens that are no padding."""
    mask = inputs.get("attention_mask")
    return logits if mask is None or logits.ndim == 2 else logits[mask.bool()]


@torch.no_grad()
def jitter(tuning, scale: float = 0.1, seed: int = 1) -> None:
    """Move every trained parameter, as training would."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in tuning.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=draw).to(parameter) * scale)


def largest(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, relative to the largest value of ``b``."""
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-9)).item()
