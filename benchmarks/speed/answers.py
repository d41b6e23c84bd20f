"""Classifying many texts, one text, and a merged model: this package against transformers' pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaForSequenceClassification, pipeline

from hybridft_utils import HeadClassifier, LoRA, Prefix, attach, load_base
from hybridft_utils.files import ASSETS

from . import subjects
from .rounds import ratios, take_turns

TEXTS, ROUNDS = 240, 3
BATCH_SIZES = (1, 8, 32)


def pipelines() -> dict[int, Callable[[list[str]], object]]:
    """transformers' text classification with a head on the last token, by batch size."""
    _, tokenizer = load_base("builtin:movies")
    torch.manual_seed(0)
    model = LlamaForSequenceClassification.from_pretrained(
        ASSETS / "movies", num_labels=2, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    made = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    return {size: lambda texts, size=size: made(texts, batch_size=size) for size in BATCH_SIZES}


def prompted(*methods: Any, merged: bool = False) -> Any:
    base, tokenizer = load_base("builtin:movies")
    classifier = subjects.classifier(base)
    classifier.tokenizer = tokenizer
    if methods:
        tuning = attach(classifier, *methods)
        if merged:
            tuning.merge()
    return classifier.eval()


def measure() -> dict[str, Any]:
    texts, _ = subjects.reviews(TEXTS)
    base, tokenizer = load_base("builtin:movies")
    head = HeadClassifier(base, tokenizer, ["negative", "positive"], pooling="last").eval()
    plain, lora = prompted(), prompted(LoRA())
    merged, hybrid = prompted(LoRA(), merged=True), prompted(LoRA(), Prefix())
    others = pipelines()
    many = take_turns(
        {
            "head": lambda: head.predict_logits(texts, 32),
            "prompt": lambda: plain.predict_logits(texts, 32),
            "prompt, LoRA": lambda: lora.predict_logits(texts, 32),
            "prompt, LoRA merged": lambda: merged.predict_logits(texts, 32),
            "prompt, LoRA + prefix": lambda: hybrid.predict_logits(texts, 32),
            **{f"pipeline, batch {n}": lambda call=call: call(texts) for n, call in others.items()},
        },
        ROUNDS,
        title="classification",
    )
    few = texts[:20]
    single = take_turns(
        {
            "head": lambda: [head.predict([text]) for text in few],
            "prompt, LoRA + prefix": lambda: [hybrid.predict([text]) for text in few],
            "pipeline": lambda: [others[1]([text]) for text in few],
        },
        ROUNDS,
        title="one text",
    )
    return {
        "settings": {"texts": TEXTS, "rounds": ROUNDS, "batch_size": 32, "model": "builtin:movies"},
        "texts_per_second": {name: round(TEXTS / min(values), 1) for name, values in many.items()},
        "time_over_head": ratios(many, "head"),
        "time_over_prompt": ratios(many, "prompt"),
        "milliseconds_per_text": {n: round(1000 * min(v) / len(few), 2) for n, v in single.items()},
    }
