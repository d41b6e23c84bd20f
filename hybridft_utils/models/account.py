"""Account for every tensor of a saved model: none missing, none left over, none of another kind."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError

ADAPTER = "adapter_config.json"
FLOATING = ("F64", "F32", "F16", "BF16")
#: What models compute anew although files of older versions hold it: positions, masks, rotary frequencies.
COMPUTED = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|attn\.(masked_)?bias)$")
#: Heads that serve pre-training alone, and the pooler, which no classifier of this package reads.
PRETRAINING_HEADS = re.compile(
    r"(^|\.)pooler\.|^(cls\.(predictions|seq_relationship)|predictions|sop_classifier|lm_predictions|"
    r"mask_predictions|discriminator_predictions)\."
)
#: The names under which this package and PEFT put their parts into a model.
TUNED = re.compile(r"(^|\.)(lora_[AB]|soft_prompt|prefix|adapter)(\.|$)|\.base(_layer)?\.(weight|bias)$")

#: Name, stored type ("F32", "I8", …) and shape of each tensor in a model's files.
Headers = dict[str, tuple[str, tuple[int, ...]]]


def check_folder(folder: Path) -> Headers:
    """The headers of the tensors in a model folder, or one sentence on what the folder lacks.

    Only headers are read, no weights.  Raises :class:`InputError` for a folder without config.json,
    with an adapter, with pickled or damaged weights, or with tensors that are not floating-point.
    """
    if not os.path.isdir(folder):  # False, too, for names that no file system can have
        raise InputError("model", str(folder), "a folder that exists and holds a model")
    if (folder / ADAPTER).is_file():
        accepted = "a folder without an adapter: load_base reads the base model, then import_peft(model, folder) the adapter"
        raise InputError("model", f"{folder} with {ADAPTER}", accepted)
    if not (folder / "config.json").is_file():
        raise InputError("model", str(folder), "a folder with config.json, tokenizer and model.safetensors")
    headers: Headers = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a dictionary)
                    part = tensors.get_slice(name)
                    headers[name] = part.get_dtype(), tuple(part.get_shape())
        except (SafetensorError, OSError, ValueError) as error:
            accepted = f"a complete safetensors file ({first_line(error)})"
            raise InputError("model", str(file), accepted) from error
    for name, (dtype, _) in headers.items():
        if dtype not in FLOATING and not COMPUTED.search(name):
            given = f"{folder} with {name} stored as {dtype}"
            raise InputError("model", given, f"weights stored as {', '.join(FLOATING)}")
    return headers


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files that its index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            return [folder / os.path.basename(name) for name in sorted(names)]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            accepted = "an index with a weight_map from tensors to files"
            raise InputError("model", str(index), accepted) from error
    other = [f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".ckpt", ".safetensors")]
    accepted = "model.safetensors or its index; pickled weights are not read, since loading them can run code"
    raise InputError("model", f"{folder} with {', '.join(sorted(other)) or 'no weights'}", accepted)


def check_size(source: str, wanted: int, headers: Headers) -> None:
    """Refuse files that hold fewer numbers than the model has parameters, which are ``wanted``."""
    held = sum(math.prod(shape) for _, shape in headers.values())
    if wanted > held:
        given = f"{source} with {held:,} weights for a model of {wanted:,} parameters"
        raise InputError("model", given, "all tensors of the model that its config.json describes")


def check_names(
    source: str,
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]] = (),
) -> None:
    """Refuse tensors that the model lacks, does not have, or has in another shape (name, saved, own)."""
    unexpected = sorted(set(unexpected))
    for name in filter(TUNED.search, unexpected):
        given = f"{source} with {name}, saved while a tuning was attached"
        raise InputError("model", given, "a model saved after Tuning.merge() or Tuning.detach()")
    for name, saved, own in sorted(mismatched):
        given = f"{source} with {name} of shape {tuple(saved)}"
        raise InputError("model", given, f"shape {tuple(own)}, as its config.json says")
    for name in sorted(missing):
        given = f"{source} without {name}"
        raise InputError("model", given, "all tensors of the model that its config.json describes")
    for name in unexpected:
        if not COMPUTED.search(name) and not PRETRAINING_HEADS.search(name):
            given = f"{source} with {name}"
            raise InputError(
                "model", given, "no tensor but those of the model that its config.json describes"
            )


def check_finite(source: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinite weights."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            given = f"{source} with NaN or infinity in {name}"
            raise InputError("model", given, f"finite weights in {str(tensor.dtype).removeprefix('torch.')}")


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
