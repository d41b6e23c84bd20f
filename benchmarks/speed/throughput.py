"""A whole training run: this package against transformers' Trainer, alone and with PEFT.

One epoch over the same reviews from ``builtin:movies``, in examples per processor second.  The Trainer's texts are
tokenised beforehand, ours while they are trained on.  Its prompt variant learns with the language model's loss on
the whole prompt, as tutorials do; its head variant puts a classification head on the last token.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import peft
import torch
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    LlamaForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from hybridft_utils import attach, load_base
from hybridft_utils.experiments.splits import Split
from hybridft_utils.experiments.training import train
from hybridft_utils.files import ASSETS
from hybridft_utils.methods import products

from . import subjects
from .rounds import ratios, take_turns

EXAMPLES, BATCH_SIZE, ROUNDS = 256, 32, 3
OURS = ("full", "lora", "prefix", "lora+prefix")


def ours(method: str, precision: str, wide: bool = products.WIDE) -> Callable[[], object]:
    """:func:`hybridft_utils.experiments.training.train` from the untouched model; not ``wide``: by MKL."""
    texts, labels = subjects.reviews(EXAMPLES)
    split, few = Split(texts, labels), Split(texts[:1], labels[:1])

    def run() -> object:
        base, tokenizer = load_base("builtin:movies")
        classifier = subjects.classifier(base)
        classifier.tokenizer = tokenizer
        tuning = attach(classifier, *subjects.METHODS[method])
        settings = {"learning_rate": 1e-4, "epochs": 1, "batch_size": BATCH_SIZE, "precision": precision}
        with patch.object(products, "WIDE", wide):
            return train(classifier, tuning, split, few, **settings)  # type: ignore[arg-type]

    return run


def theirs(variant: str, tuned: bool, bf16: bool = False) -> Callable[[], object]:
    """transformers' Trainer with its defaults; ``variant`` is "prompt" or "head", ``tuned`` adds PEFT's LoRA."""
    texts, labels = subjects.reviews(EXAMPLES)

    def run() -> object:
        base, tokenizer = load_base("builtin:movies")
        task = "CAUSAL_LM" if variant == "prompt" else "SEQ_CLS"
        if variant == "prompt":
            template = subjects.classifier(base).template
            words = ("terrible", "great")
            filled = [template.fill(text, words[label]) for text, label in zip(texts, labels, strict=True)]
            rows = [{"input_ids": ids} for ids in tokenizer(filled).input_ids]
            collator: Any = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        else:
            base = LlamaForSequenceClassification.from_pretrained(
                ASSETS / "movies", num_labels=2, dtype=torch.float32
            )
            found = tokenizer(texts).input_ids
            rows = [{"input_ids": ids, "label": label} for ids, label in zip(found, labels, strict=True)]
            collator = DataCollatorWithPadding(tokenizer)
        model = peft.get_peft_model(base, subjects.peft_config("lora", task)) if tuned else base
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                folder,
                per_device_train_batch_size=BATCH_SIZE,
                num_train_epochs=1,
                learning_rate=1e-4,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
                use_cpu=True,
                bf16=bf16,
            )
            return Trainer(model, settings, data_collator=collator, train_dataset=rows).train()

    return run


def measure() -> dict[str, Any]:
    candidates = {
        **{f"{method}, fp32": ours(method, "fp32") for method in OURS},
        **{f"{method}, bf16": ours(method, "bf16") for method in ("full", "lora+prefix")},
        "lora+prefix, fp32 by MKL": ours("lora+prefix", "fp32", wide=False),
        "Trainer, full, prompt": theirs("prompt", tuned=False),
        "Trainer + PEFT LoRA, prompt": theirs("prompt", tuned=True),
        "Trainer + PEFT LoRA, prompt, bf16": theirs("prompt", tuned=True, bf16=True),
        "Trainer, full, head": theirs("head", tuned=False),
        "Trainer + PEFT LoRA, head": theirs("head", tuned=True),
    }
    seconds = take_turns(candidates, ROUNDS, title="training runs")
    best = {name: round(EXAMPLES / min(values), 1) for name, values in seconds.items()}
    return {
        "settings": {
            "examples": EXAMPLES,
            "batch_size": BATCH_SIZE,
            "rounds": ROUNDS,
            "model": "builtin:movies",
        },
        "examples_per_second": best,
        "time_over_hybrid": ratios(seconds, "lora+prefix, fp32"),
    }
