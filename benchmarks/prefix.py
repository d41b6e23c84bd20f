"""Prefix-tuning: length, softmax, start, network, gate, positions, few texts; and a soft prompt of the same length.

A probe says what the prefix does to attention where the answer is read.
"""

import math
from functools import partial
from typing import Any

import torch
from datasets import DatasetDict
from torch import Tensor
from torch.nn.functional import logsigmoid

from hybridft_utils import Prefix, PromptClassifier, SoftPrompt
from hybridft_utils.experiments.fine_tune import Tuned
from hybridft_utils.experiments.studies import Point
from hybridft_utils.methods.prefix import PrefixKV
from hybridft_utils.models.llama import attention, load_llama

from .points import FEW


def watched(query: Tensor, key: Tensor, value: Tensor, prefix: PrefixKV, kept: list[Tensor]) -> Tensor:
    """Attention with ``prefix`` (chapter 07); what it does at the last position, (heads,), is appended to ``kept``:
    the share λ of a joint prefix, of a separate one the norm of what it adds over that of the text's attention.
    """
    front_key, front_value = prefix.keys_and_values()
    root, length = math.sqrt(query.shape[-1]), query.shape[2]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    own = (query @ key.mT / root).masked_fill(future, -math.inf)
    front = query @ front_key.mT / root
    text, found = attention(query, key, value), front.softmax(-1) @ front_value
    if prefix.separate:
        added = prefix.gate * found
        kept.append((added.norm(dim=-1) / text.norm(dim=-1))[0, :, -1])
        return text + added
    log_gate = 0.0 if prefix.gate_logit is None else logsigmoid(prefix.gate_logit)
    odds = front.logsumexp(-1, keepdim=True) + log_gate - own.logsumexp(-1, keepdim=True)
    share = odds.sigmoid()
    kept.append(share[0, :, -1, 0])
    return (1 - share) * text + share * found


@torch.no_grad()
def probe(tuned: Tuned, data: DatasetDict) -> dict[str, Any]:
    """λ ("share") or what is added ("added") by layer and head, a mean over about 200 test texts, and the gates."""
    assert tuned.tuning is not None and isinstance(tuned.classifier, PromptClassifier)
    llama, kept = load_llama("builtin:movies"), []  # type: ignore[var-annotated]
    for layer, part in zip(llama.layers, tuned.tuning.parts, strict=True):
        layer.self_attn.attend = partial(watched, prefix=part.module, kept=kept)
    texts = list(data["test"]["text"])
    texts = texts[:: max(1, len(texts) // 200)]  # of every class, since the classes may follow each other
    for row in tuned.classifier.encode_all(texts):
        llama(torch.tensor([row]))
    shares = torch.stack(kept).unflatten(0, (len(texts), len(llama.layers))).mean(0)
    gates = [round(float(gate), 4) for gate in tuned.tuning.gates().values()]
    name = "share" if tuned.tuning.methods[0].softmax == "joint" else "added"  # type: ignore[attr-defined]
    return {name: [[round(value, 4) for value in row] for row in shares.tolist()], "gates": gates}


LENGTHS = (1, 4, 16, 64)
#: The rate that suits a joint prefix (``benchmarks/prefix_starts.py``).
JOINT: dict[str, Any] = {"learning_rate": {"prefix": 1e-2}}

POINTS = {
    **{f"length {length}": Point((Prefix(length),), probe=probe) for length in LENGTHS},
    "joint": Point((Prefix(16, softmax="joint"),), JOINT, probe=probe),
    "joint, from words": Point((Prefix(16, softmax="joint", init="vocab"),), JOINT, probe=probe),
    "from words": Point((Prefix(16, init="vocab"),), probe=probe),
    "network": Point((Prefix(16, reparam_hidden=128),), {"learning_rate": {"prefix": 3e-3}}, probe=probe),
    "gated": Point((Prefix(16, gated=True),), probe=probe),
    "shift": Point((Prefix(16, init="vocab", positions="shift"),)),
    "prompt": Point((SoftPrompt(16),)),
    "length 16, 100 texts": Point((Prefix(16),), FEW, probe=probe),
    "reviews-en": Point(
        (Prefix(16),),
        {"dataset": "builtin:reviews-en", "train_size": 128, "validation_size": 128, "epochs": 2},
    ),
}
