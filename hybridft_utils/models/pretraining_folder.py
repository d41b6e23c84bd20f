"""What a pre-training keeps in its folder: settings, tokenised reviews, checkpoint and log."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm.auto import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ..errors import InputError
from ..files import read_json, write_bytes, write_json, write_text
from .corpus import Corpus, pack
from .pretraining_settings import PretrainConfig
from .vocabulary import TOKENIZERS, finished

SETTINGS, REVIEWS, CHECKPOINT, LOG = "settings.json", "reviews.npz", "checkpoint.pt", "log.jsonl"


@dataclass
class Checkpoint:
    """How far a run is: steps made, seconds they took, and the log up to here."""

    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


def keep_settings(config: PretrainConfig, corpus: Corpus) -> None:
    """Write the settings beside the run that they decide; refuse a folder that was begun with others."""
    file, wanted = config.output_dir / SETTINGS, config.deciding(corpus)
    if not file.exists():
        for left in (REVIEWS, CHECKPOINT, LOG):
            if (config.output_dir / left).exists():
                given = f"{config.output_dir} with {left} but without {SETTINGS}"
                raise InputError("output_dir", given, "a new folder, or one with a run of the same settings")
        write_json(file, wanted)
    kept = read_json(file, "output_dir")
    if not isinstance(kept, dict):
        raise InputError("output_dir", str(file), "the settings of a run")
    for name in {**wanted, **kept}:
        if kept.get(name) != wanted.get(name):
            given = f"{config.output_dir}, begun with {name} {kept.get(name)!r}"
            accepted = f"a new folder, or one with a run of the same settings ({name} {wanted.get(name)!r})"
            raise InputError("output_dir", given, accepted)


def prepare(
    config: PretrainConfig, corpus: Corpus
) -> tuple[PreTrainedTokenizerFast, list[list[int]], np.ndarray]:
    """Tokenizer, training reviews as token ids, and validation rows (rows, context); kept in the folder."""
    texts, count = corpus.training, config.validation_reviews
    if count >= len(texts):
        raise InputError("validation_reviews", count, f"fewer than the {len(texts)} reviews of the data")
    cache = config.output_dir / REVIEWS
    if not cache.exists():
        tokenizer = TOKENIZERS[config.tokenizer](texts, config.vocabulary_size)
        batches = [texts[i : i + 1000] for i in range(0, len(texts), 1000)]
        ids = [np.array(r, np.uint16) for b in tqdm(batches, "tokens") for r in tokenizer(b).input_ids]
        made = io.BytesIO()
        core = np.frombuffer(tokenizer.backend_tokenizer.to_str().encode(), np.uint8)
        np.savez(made, ids=np.concatenate(ids), lengths=[len(r) for r in ids], tokenizer=core)
        write_bytes(cache, made.getvalue())
    try:
        with np.load(cache) as kept:
            reviews = [r.tolist() for r in np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])]
            core = kept["tokenizer"].tobytes().decode()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(cache, error) from error
    tokenizer = finished(Tokenizer.from_str(core))
    order = np.random.default_rng(config.seed).permutation(len(reviews))
    validation = pack([reviews[i] for i in order[:count]], config.context)
    if not len(validation):
        accepted = f"more reviews, since those held out do not fill one row of {config.context} tokens"
        raise InputError("validation_reviews", count, accepted)
    return tokenizer, [reviews[i] for i in order[count:]], validation


def save_checkpoint(
    folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], state: Checkpoint
) -> None:
    """Write the log, so that it can be watched, and then the checkpoint, which also holds it."""
    write_text(folder / LOG, "".join(f"{json.dumps(entry)}\n" for entry in state.log))
    made = io.BytesIO()
    states = [o.state_dict() for o in optimizers]
    torch.save({"model": model.state_dict(), "optimizers": states, **vars(state)}, made)
    write_bytes(folder / CHECKPOINT, made.getvalue())


def load_checkpoint(
    folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]
) -> Checkpoint:
    """Fill ``model`` and ``optimizers`` from the checkpoint of a killed run, if there is one."""
    file = folder / CHECKPOINT
    if not file.exists():
        return Checkpoint()
    try:
        state = torch.load(file, map_location=model.device, weights_only=True)
        model.load_state_dict(state.pop("model"))
        for optimizer, saved in zip(optimizers, state.pop("optimizers"), strict=True):
            optimizer.load_state_dict(saved)
        return Checkpoint(**state)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise damaged(file, error) from error
    except pickle.UnpicklingError as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> InputError:
    """The sentence for a file that cannot be read."""
    return InputError("output_dir", str(file), f"an undamaged file, or none ({type(error).__name__})")
