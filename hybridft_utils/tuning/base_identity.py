"""What a saved tuning remembers of the base model it was trained on, and comparing a model with that."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..errors import InputError
from .attached import Attached
from .checksums import tensor_checksum

SIZES = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def describe_base(tuning: Attached, checksum: Callable[[Tensor], Any] = tensor_checksum) -> dict[str, Any]:
    """Sizes, precision and a checksum of each parameter of the base that ``tuning`` does not train.

    What is trained in place is saved with the tuning, so it may differ in the base.
    """
    model = tuning.model
    return {
        **{name: getattr(model.config, name) for name in SIZES},
        "dtype": str(model.dtype).removeprefix("torch."),
        "checksums": {name: checksum(parameter) for name, parameter in tuning.frozen_parameters()},
    }


def sampled_checksum(parameter: Tensor) -> int:
    """The CRC-32 of 256 to 511 values spread over ``parameter`` (all of a smaller one), as in format 1."""
    values = parameter.detach().flatten()[:: max(1, parameter.numel() // 256)].float()
    return zlib.crc32(values.cpu().numpy().tobytes())


def compare_bases(saved: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse a base model other than the saved one, and name the first difference."""
    for name in (*SIZES, "dtype"):
        if given[name] != saved.get(name):
            accepted = f"the saved tuning's base with {name}={saved.get(name)}"
            raise InputError("model", f"{name}={given[name]}", accepted)
    sums = saved["checksums"]
    for name in sorted(sums.keys() | given["checksums"].keys()):
        if given["checksums"].get(name) != sums.get(name):
            raise InputError("model", f"other weights in {name}", "the base model the tuning was trained on")
