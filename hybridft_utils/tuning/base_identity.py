"""What a saved tuning remembers of the base model it was trained on, and comparing two of them."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import InputError

SIZES = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def describe_base(root: nn.Module, model: PreTrainedModel, saved: Collection[str]) -> dict[str, Any]:
    """Sizes, precision, and a checksum of 256 values spread over each parameter.

    Parameters in ``saved`` come with the tuning, so they may differ.
    """
    sums = {}
    for name, parameter in root.named_parameters():
        if name not in saved:
            values = parameter.detach().flatten()[:: max(1, parameter.numel() // 256)].float()
            sums[name] = zlib.crc32(values.cpu().numpy().tobytes())
    sizes = {name: getattr(model.config, name) for name in SIZES}
    return {**sizes, "dtype": str(model.dtype).removeprefix("torch."), "checksums": sums}


def compare_bases(saved: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse another base model than the saved one, by the name of the first difference."""
    for name in (*SIZES, "dtype"):
        if given[name] != saved.get(name):
            accepted = f"the saved tuning's base with {name}={saved.get(name)}"
            raise InputError("model", f"{name}={given[name]}", accepted)
    sums = dict(saved.get("checksums", {}))
    for name in sorted(sums.keys() | given["checksums"].keys()):
        if given["checksums"].get(name) != sums.get(name):
            raise InputError("model", f"other weights in {name}", "the base model the tuning was trained on")
