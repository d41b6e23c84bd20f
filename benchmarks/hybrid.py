"""Methods together, and what is right when only some parts of a hybrid are kept.

Each method alone is a point of its own study, with the same settings, seeds and test texts: lora's "rank 8",
prefix's "length 16", adapters' "sequential 64"; and ", 100 texts" of the first two.
"""

from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict

from hybridft_utils import Adapter, LoRA, Prefix, Recipe, attach, mam, unipelt
from hybridft_utils.experiments.fine_tune import Tuned
from hybridft_utils.experiments.studies import Point

from .points import FEW

REVIEWS = {"dataset": "builtin:reviews-en", "train_size": 128, "validation_size": 128, "epochs": 2}
PARTS = {"lora": LoRA(), "prefix": Prefix(), "adapter": Adapter()}


def gates(tuned: Tuned, texts: list[str]) -> dict[str, float]:
    """Each gate's mean over the tokens of ``texts``, padding left out; empty without gates."""
    classifier, tuning = tuned.classifier, tuned.tuning
    with torch.no_grad():
        classifier.logits(texts)
    lengths = torch.tensor([len(row) for row in classifier.encode_all(texts)])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    return {name: round(g.cpu()[..., 0][real].mean().item(), 4) for name, g in tuning.gates().items()}


def inside(tuned: Tuned, data: DatasetDict, smallest: int = 0) -> dict[str, Any]:
    """``kept``: for each choice of at least ``smallest`` kinds, such as "lora" or "lora+prefix" or "" for none,
    which test texts are right when only these parts stay, as a string of 0 and 1.  ``gates``: see :func:`gates`.
    """
    classifier, tuning = tuned.classifier, tuned.tuning
    means, state, methods = gates(tuned, data["validation"]["text"][:64]), tuning.state_dict(), tuning.methods
    tuning.detach()
    kept = {}
    for size in range(smallest, len(methods)):
        for chosen in combinations(methods, size):
            if chosen:
                part = attach(classifier, *chosen, gating=tuning.gating)
                part.load_state_dict({name: state[name] for name, _ in part.named_parameters()})
            right = (
                classifier.predict_logits(data["test"]["text"]).argmax(-1).numpy() == data["test"]["label"]
            )
            kept["+".join(m.kind for m in chosen)] = "".join("1" if r else "0" for r in np.asarray(right))
            if chosen:
                part.detach()
    return {"kept": kept, "gates": means}


def point(recipe: Recipe) -> Point:
    """A published hybrid."""
    return Point(recipe.methods, gating=recipe.gating, probe=partial(inside, smallest=2))


POINTS = {
    **{"+".join(pair): Point(tuple(PARTS[p] for p in pair)) for pair in combinations(PARTS, 2)},
    "+".join(PARTS): Point(tuple(PARTS.values()), probe=inside),
    "unipelt": point(unipelt()),
    "unipelt without gates": point(Recipe(unipelt().methods)),
    # The bottleneck is half the model's width, as 512 is of 1,024 in the paper.
    "mam": replace(point(mam(bottleneck=128)), probe=None),
    "lora+prefix, 100 texts": Point((PARTS["lora"], PARTS["prefix"]), FEW),
    "unipelt, 100 texts": replace(point(unipelt()), settings=FEW, probe=None),
    "reviews-en": Point((LoRA(), Prefix()), REVIEWS),
}
