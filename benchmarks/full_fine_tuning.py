"""Full fine-tuning with a new head: the body's learning rate, layers at other speeds, the head alone, and
the prompt of the next chapter in place of the head, untrained and trained.

Probes say how far the weights of each layer went, what the language model lost, and what a bag of words
makes of the same training sentences.
"""

from typing import Any

import torch
from datasets import DatasetDict

from hybridft_utils import FullFineTuning, HeadOnly, load_reviews
from hybridft_utils.classifiers.bag_of_words import tfidf_regression
from hybridft_utils.experiments.fine_tune import Tuned
from hybridft_utils.experiments.splits import as_split, subset
from hybridft_utils.experiments.studies import SETTINGS, Point
from hybridft_utils.tuning.attach import Tuning

from .costs import rise


@torch.no_grad()
def relative_change(tuning: Tuning) -> list[float]:
    """||ΔW|| / ||W_0|| of the embeddings and of each layer, all their parameters taken together."""
    groups = ["embed_tokens", *(f"layers.{i}" for i in range(tuning.model.config.num_hidden_layers))]
    tuned = {name: p.detach().clone() for name, p in tuning.host.inner.named_parameters()}
    changed = torch.zeros(2, len(groups))
    with tuning.disabled():
        for name, parameter in tuning.host.inner.named_parameters():
            for column, group in enumerate(groups):
                if name.startswith(f"{group}."):
                    change = tuned[name] - parameter
                    changed[:, column] += torch.stack([change.square().sum(), parameter.square().sum()])
    return [round(value, 5) for value in (changed[0] / changed[1]).sqrt().tolist()]


def probe(tuned: Tuned, data: DatasetDict) -> dict[str, Any]:
    """``change`` by layer; ``forgetting``: what the loss of the language model has risen by on each of 200
    validation sentences, and ``forgetting_elsewhere`` on each validation text of builtin:reviews-en.
    """
    assert tuned.tuning is not None
    elsewhere = load_reviews("builtin:reviews-en")["validation"]["text"]
    return {
        "change": relative_change(tuned.tuning),
        "forgetting": rise(tuned, list(data["validation"]["text"])[:200]),
        "forgetting_elsewhere": rise(tuned, list(elsewhere)),
    }


def probe_with_floor(tuned: Tuned, data: DatasetDict) -> dict[str, Any]:
    """Also which test sentences a bag of words gets right, trained on the sentences of the same seed."""
    seed = torch.initial_seed()  # the training set it
    pairs = [
        (split.texts, split.labels)
        for split in (
            as_split(subset(data["train"], SETTINGS["train_size"], seed)),
            as_split(data["validation"]),
        )
    ]
    test = as_split(data["test"])
    pipeline, c = tfidf_regression(*pairs)
    right = pipeline.predict(list(test.texts)) == torch.tensor(test.labels).numpy()
    floor = {"bag_of_words": "".join("1" if r else "0" for r in right), "bag_of_words_c": c}
    return {**probe(tuned, data), **floor}


RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)
#: The last position has read the whole text; the chapter chooses it over the mean on validation.
HEAD: dict[str, Any] = {"classifier": "head", "pooling": "last"}
DEFAULT = {**HEAD, "learning_rate": {"full": 3e-4}}

POINTS = {
    "zero-shot": Point(),
    **{
        f"rate {rate:g}": Point((FullFineTuning(),), {**HEAD, "learning_rate": {"full": rate}}, probe=probe)
        for rate in RATES
    },
    "head": Point((HeadOnly(),), HEAD, probe=probe_with_floor),
    "freeze 2": Point((FullFineTuning(freeze_layers=2),), DEFAULT, probe=probe),
    "decay 0.7": Point((FullFineTuning(layer_decay=0.7),), DEFAULT, probe=probe),
    "prompt": Point((FullFineTuning(),), {"learning_rate": {"full": 3e-4}}, probe=probe),
    "reviews-en": Point(
        (FullFineTuning(),),
        {**DEFAULT, "dataset": "builtin:reviews-en", "train_size": 64, "validation_size": 64, "epochs": 1},
    ),
}
