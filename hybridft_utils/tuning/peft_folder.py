"""PEFT's folders as files: names of files and tensors, and writing and reading both files as one adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..errors import InputError
from ..files import exclusive, read_json, replacing, write_json, write_tensors
from .checksums import settings_checksum
from .saved_folder import PATIENCE, content_of, parse_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
#: Where PEFT's wrapper keeps the base model, which starts the names of saved tensors.
LORA_BASE, PROMPT_BASE = "base_model.model", "base_model"
#: An entry beside the tensors: the checksum of the settings that were written with them, except for those
#: that say where the base model lies, which may be changed by hand.
PAIRED, FREE = "hybridft_config", ("base_model_name_or_path", "revision", "inference_mode")


def write_adapter(folder: Path, settings: dict[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write both files so that a reader, PEFT too, finds no adapter or a whole one, whatever stops the writer.

    PEFT fixes both names, and no system replaces two files in one step.  So settings that are there are never
    replaced: with the same settings the tensors alone are, in one step, and other settings are refused.
    Where there are none they appear last, since no reader takes a folder without them for an adapter.
    """
    config, weights = folder / CONFIG, folder / WEIGHTS
    with exclusive(folder, "folder", wait=PATIENCE):
        if config.exists():
            there = read_config(folder)
            refuse_other_settings(folder, there, settings)
            write_tensors(weights, state, {PAIRED: pair_checksum(there)})
        else:
            with replacing(config) as fresh:
                write_json(fresh, settings)  # a disk that is full is noticed before the tensors are there
                write_tensors(weights, state, {PAIRED: pair_checksum(settings)})


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in ``folder``."""
    settings = read_json(folder / CONFIG, "folder")
    if not isinstance(settings, dict):
        raise InputError("folder", str(folder), f"a folder whose {CONFIG} is a JSON object")
    return settings


def refuse_other_settings(folder: Path, there: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse ``settings`` that say anything else than those that are ``there``, in whatever layout."""
    missing = object()
    names = sorted(there.keys() | settings)
    other = [name for name in names if there.get(name, missing) != settings.get(name, missing)]
    if other:
        given = f"an adapter of other {', '.join(other[:3])} in {folder}"
        raise InputError("folder", given, "a folder without a PEFT adapter, or with one of the same settings")


def pair_checksum(settings: dict[str, Any]) -> str:
    return settings_checksum({name: value for name, value in settings.items() if name not in FREE})


def paired_with(content: bytes) -> str | None:
    """The checksum that the header of a safetensors file names; None where it names none."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return header["__metadata__"][PAIRED]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_adapter(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a folder that PEFT or :func:`write_adapter` wrote."""
    for name in (CONFIG, WEIGHTS):
        if not (Path(folder) / name).is_file():
            accepted = f"a folder with {name} (pickled weights are never read)"
            raise InputError("folder", str(folder), accepted)
    settings = read_config(Path(folder))
    content = content_of(Path(folder) / WEIGHTS) or b""
    tensors = parse_tensors(content, WEIGHTS, folder)
    if paired_with(content) not in (None, pair_checksum(settings)):
        raise InputError("folder", str(folder), f"{CONFIG} and {WEIGHTS} that were written together")
    return settings, tensors


def refuse_pooled_prompt(parameter: str, model: PreTrainedModel) -> None:
    """Refuse a soft prompt on a classifier: PEFT would pool a prompt vector or padding, not the text."""
    if task_type(model) == "SEQ_CLS":
        raise InputError(
            parameter,
            f"a soft prompt on {type(model).__name__}",
            "a language model: PEFT pools the wrong token",
        )


def task_type(model: PreTrainedModel) -> str | None:
    """PEFT's name of the model's task; None where it has none."""
    names = {"ForSequenceClassification": "SEQ_CLS", "ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM"}
    return next((task for ending, task in names.items() if type(model).__name__.endswith(ending)), None)
