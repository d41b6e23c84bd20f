"""Load a pretrained model and its tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
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
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from ..errors import InputError
from ..files import ASSETS
from .account import Headers, check_finite, check_folder, check_names, check_size, first_line

BUILTIN = {"builtin:movies": ASSETS / "movies"}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
#: What a configuration with impossible values raises somewhere inside transformers.
IMPOSSIBLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)


def load_base(
    model: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load "builtin:movies", a folder or a Hub id: a causal or masked language model or an encoder.

    Weights come from safetensors files only, and no code of the model's author is run.  Every tensor
    is accounted for: none missing, none unexpected, none of another shape, none NaN or infinite.  The
    model remembers the name it was loaded by as ``loaded_from``.  A tokenizer without a padding token
    pads with its end-of-text token.

    Raises :class:`InputError` for a folder without a model, with damaged or pickled weights, with
    tensors that do not fit config.json, with an adapter or a trained classification head, or for a
    Hub that cannot be reached.
    """
    if dtype not in DTYPES:
        raise InputError("dtype", dtype, f"one of {', '.join(map(str, DTYPES))}")
    source = str(BUILTIN.get(str(model), model))
    local = os.path.exists(source) or source.startswith((".", "/"))
    if str(model).startswith("builtin:") and str(model) not in BUILTIN:
        raise InputError("model", str(model), f"{', '.join(BUILTIN)}, a folder or a Hub id")
    with quiet(bars=not local), one_sentence(source):
        headers = check_folder(Path(source)) if local else None
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        check_config(source, config, headers)
        loaded, account = loader(config).from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below
        )
        if not local:
            check_folder(Path(str(cached_file(source, "config.json"))).parent)
        check_loaded(source, loaded, account)
        tokenizer = load_tokenizer(source, loaded)
    if loaded.config.pad_token_id is None:
        loaded.config.pad_token_id = tokenizer.pad_token_id
    loaded.loaded_from = str(model)
    return loaded.eval(), tokenizer


@contextmanager
def quiet(bars: bool) -> Iterator[None]:
    """No table of transformers' own on what it found, and no bar unless something is downloaded."""
    bars_wanted = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    if not bars:  # in a notebook it would end up in the page
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars_wanted:
            transformers_logging.enable_progress_bar()


@contextmanager
def one_sentence(source: str) -> Iterator[None]:
    """What goes wrong inside transformers becomes an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except IMPOSSIBLE as error:
        accepted = (
            f"builtin:movies, a folder with a model, or a Hub id that can be reached ({first_line(error)})"
        )
        raise InputError("model", source, accepted) from error


def check_config(source: str, config: PretrainedConfig, headers: Headers | None) -> None:
    """Refuse, before anything is built, what is no language model, has an adapter or lacks weights.

    A config.json without sizes stands for a default model of billions of parameters; the headers of
    a local folder tell how many there are.
    """
    if find_adapter_config_file(source) is not None:
        accepted = "a model without an adapter: load_base reads the base model, then import_peft(model, folder) the adapter"
        raise InputError("model", f"{source} with an adapter", accepted)
    saved_as = (config.architectures or [""])[0]
    if "For" in saved_as and not saved_as.endswith(("ForCausalLM", "ForMaskedLM", "ForPreTraining")):
        accepted = f"a language model or an encoder, since the trained head of a {saved_as} would be dropped"
        raise InputError("model", source, accepted)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError("model", f"{source} with quantization_config", "weights that are not quantised")
    if headers is None:
        return
    layers = getattr(config, "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > len(headers):
        given = f"{source} with {len(headers)} tensors for {layers} layers"
        raise InputError("model", given, "all tensors of the model that its config.json describes")
    with torch.device("meta"):
        empty = loader(config).from_config(config, trust_remote_code=False)
    wanted = sum(p.numel() for name, p in empty.named_parameters() if "pooler." not in name)
    check_size(source, wanted, headers)


def check_loaded(source: str, model: PreTrainedModel, account: dict[str, Any]) -> None:
    """Refuse a model with tensors that are missing, left over, in another shape or not finite."""
    missing = [name for name in account["missing_keys"] if "pooler." not in name]
    check_names(source, missing, account["unexpected_keys"], account["mismatched_keys"])
    check_finite(source, {n: t for n, t in model.state_dict().items() if "pooler." not in n})
    if len(missing) < len(account["missing_keys"]):
        setattr(model, "pooler", None)  # noqa: B010 (an encoder saved without a pooler has none)
    if model.config.tie_word_embeddings and (head := model.get_output_embeddings()) is not None:
        embedding = model.get_input_embeddings()
        if getattr(head, "weight", embedding.weight) is not embedding.weight:
            given = f"{source} with tie_word_embeddings true and two different matrices"
            raise InputError("model", given, "one matrix, or tie_word_embeddings false in config.json")
    if not model.config.is_encoder_decoder:
        with torch.no_grad():
            read = model(input_ids=torch.zeros(1, 2, dtype=torch.long))[0]
        if not read.isfinite().all():
            raise InputError("model", f"{source}, which computes NaN or infinity", "a config.json that fits")


def load_tokenizer(source: str, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, which must be able to pad and have a row of the embedding for each token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing narrower for a damaged file
        raise InputError("model", source, f"a folder with a tokenizer ({first_line(error)})") from error
    weight: Any = model.get_input_embeddings().weight
    rows = len(weight)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= largest < rows:
        given = f"{source} with token {largest} and an embedding of {rows} rows"
        raise InputError("model", given, "a tokenizer with a row of the embedding for each of its tokens")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            given = f"{source} with a tokenizer that has neither"
            raise InputError("model", given, "a tokenizer with a padding or an end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def loader(config: PretrainedConfig) -> Any:
    """The transformers class that loads the model with the head it was saved with."""
    saved_as = (config.architectures or [""])[0]
    if saved_as.endswith(("ForCausalLM", "LMHeadModel")):
        return AutoModelForCausalLM
    if saved_as.endswith("ForMaskedLM"):
        return AutoModelForMaskedLM
    return AutoModel


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest number of tokens in one input."""
    return min(model.config.max_position_embeddings, tokenizer.model_max_length)
