"""PEFT's folders as files: names of files and tensors, and writing and reading both files as one adapter."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import InputError
from ..files import exclusive, read_json, replacing, write_bytes, write_json
from .checksums import settings_checksum
from .saved_folder import PATIENCE, content_of, parse_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
#: Where PEFT's wrapper keeps the base model, which starts the names of saved tensors.
LORA_BASE, PROMPT_BASE = "base_model.model", "base_model"
#: An entry beside the tensors: the checksum of the settings that were written with them, except for those
#: that say where the base model lies, which may be changed by hand.
PAIRED, FREE = "hybridft_config", ("base_model_name_or_path", "revision", "inference_mode")
#: How often, and how many seconds apart, a reader looks again while the two files do not belong together.
LOOKS, PAUSE = 50, 0.1


def write_adapter(folder: Path, settings: dict[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write both files, or leave both as they were.

    PEFT fixes both names, so a process that is killed between the two replacements leaves a new file and an
    old one; :func:`read_adapter` refuses such a pair.
    """
    config, weights = folder / CONFIG, folder / WEIGHTS
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    pair = pair_checksum(settings)
    with exclusive(folder, "folder", wait=PATIENCE):
        before = content_of(config)
        try:
            with replacing(weights) as fresh:
                fresh.write_bytes(save(tensors, {"format": "pt", PAIRED: pair}))
                write_json(config, settings)
        except BaseException:
            if paired_with(content_of(weights)) != pair:
                put_back(config, before)
            raise


def pair_checksum(settings: dict[str, Any]) -> str:
    return settings_checksum({name: value for name, value in settings.items() if name not in FREE})


def paired_with(content: bytes | None) -> str | None:
    """The checksum that the header of a safetensors file names; None where it names none."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")] if content else b"{}")
        return header["__metadata__"][PAIRED]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def put_back(path: Path, content: bytes | None) -> None:
    """Make ``path`` hold ``content`` again, or nothing."""
    if content is None:
        path.unlink(missing_ok=True)
    elif content != content_of(path):
        write_bytes(path, content)


def read_adapter(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a folder that PEFT or :func:`write_adapter` wrote."""
    for name in (CONFIG, WEIGHTS):
        if not (Path(folder) / name).is_file():
            accepted = f"a folder with {name} (pickled weights are never read)"
            raise InputError("folder", str(folder), accepted)
    for _ in range(LOOKS):
        settings = read_json(Path(folder) / CONFIG, "folder")
        if not isinstance(settings, dict):
            raise InputError("folder", str(folder), f"a folder whose {CONFIG} is a JSON object")
        content = content_of(Path(folder) / WEIGHTS)
        if content is not None:
            tensors = parse_tensors(content, WEIGHTS, folder)
            if paired_with(content) in (None, pair_checksum(settings)):
                return settings, tensors
        time.sleep(PAUSE)
    raise InputError("folder", str(folder), f"{CONFIG} and {WEIGHTS} that were written together")


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
