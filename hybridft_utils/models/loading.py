"""Load a pretrained model and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ..errors import InputError
from ..files import ASSETS

BUILTIN = {"builtin:movies": ASSETS / "movies"}


def load_base(
    model: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load "builtin:movies", a folder or a Hub id: a causal or masked language model or an encoder.

    Weights come from safetensors files only, and no code of the model's author is run.  A tokenizer
    without a padding token pads with its end-of-text token.

    Raises :class:`InputError` for a folder without a model, with pickled weights only, or a Hub
    that cannot be reached.
    """
    source = str(BUILTIN.get(str(model), model))
    folder = Path(source)
    if str(model).startswith("builtin:") and str(model) not in BUILTIN:
        raise InputError("model", str(model), f"{', '.join(BUILTIN)}, a folder or a Hub id")
    if folder.is_dir():
        check_folder(folder)
    elif folder.is_file() or source.startswith((".", "/")):
        raise InputError("model", source, "a folder that exists and holds a model")
    bars_wanted = transformers_logging.is_progress_bar_enabled()
    if folder.is_dir():  # a bar is for downloads; in a notebook it would end up in the page
        transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        loaded = loader(config).from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        accepted = f"builtin:movies, a folder with a model, or a Hub id that can be reached ({reason})"
        raise InputError("model", source, accepted) from error
    finally:
        if bars_wanted:
            transformers_logging.enable_progress_bar()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if loaded.config.pad_token_id is None:
        loaded.config.pad_token_id = tokenizer.pad_token_id
    return loaded.eval(), tokenizer


def check_folder(folder: Path) -> None:
    """Say in one sentence what a model folder lacks."""
    if not (folder / "config.json").is_file():
        raise InputError("model", str(folder), "a folder with config.json, tokenizer and model.safetensors")
    if not list(folder.glob("*.safetensors")):
        pickled = [f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        given = f"{folder} with {', '.join(pickled) or 'no weights'}"
        raise InputError("model", given, "weights as safetensors, since loading pickled weights can run code")


def loader(config: PretrainedConfig) -> Any:
    """The transformers class that loads the model with the head it was saved with."""
    saved_as = (config.architectures or [""])[0]
    if saved_as.endswith(("ForCausalLM", "LMHeadModel")):
        return AutoModelForCausalLM
    if saved_as.endswith("ForMaskedLM"):
        return AutoModelForMaskedLM
    return AutoModel


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Most tokens one input may have."""
    return min(model.config.max_position_embeddings, tokenizer.model_max_length)
