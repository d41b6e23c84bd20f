"""Pre-train a small language model such as ``builtin:movies``, which ships with the book.

``python -m hybridft_utils.models.pretrain --data DATA --output_dir FOLDER`` trains a tokenizer and a
causal Llama of about 5 M parameters on the IMDB reviews outside the test split.  DATA is a Hub id
(``stanfordnlp/imdb``), a folder with ``train.parquet`` and ``unsupervised.parquet``, or several files
and ``package:`` sets of reviews.

A row of training data is filled up with reviews; where the last one is cut, its rest begins the next
row.  The matrices inside the layers are updated by Muon (Jordan et al. 2024), all other parameters by
AdamW.  The learning rates warm up linearly and fall along a cosine.

FOLDER keeps the settings, the tokenised reviews, a checkpoint and the log.  The same command continues a
killed run exactly where its last checkpoint stands; other settings or data are refused.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..errors import InputError, describe
from ..files import check_writable, exclusive, write_bytes, write_text
from .account import check_finite
from .corpus import clean as clean
from .corpus import pack
from .loss_curve import draw_losses
from .muon import Muon
from .pretraining_folder import Checkpoint, keep_settings, load_checkpoint, prepare, save_checkpoint
from .pretraining_settings import PretrainConfig


def build_model(config: PretrainConfig) -> LlamaForCausalLM:
    """An untrained model; its loss starts at about ln(vocabulary_size)."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
        )
    )


def build_optimizers(model: LlamaForCausalLM, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
        torch.optim.AdamW(rest, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, config: PretrainConfig) -> float:
    """Factor on the learning rates: linear warm-up, then a cosine down to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def validation_loss(model, rows: Tensor, batch_size: int) -> float:
    """Mean negative log-likelihood of ``rows`` (rows, context), in nats per token."""
    model.eval()
    losses = [model(b, labels=b).loss.item() * len(b) for b in rows.split(batch_size)]
    model.train()
    return sum(losses) / len(rows)


def pretrain(config: PretrainConfig) -> Path:
    """Train, or continue a killed run exactly at its last checkpoint; the folder of the finished model.

    Raises :class:`InputError` for data or an ``output_dir`` that cannot be used, for an ``output_dir``
    with a run of other settings, and when the loss is no longer finite.
    """
    folder = config.output_dir
    check_writable(folder, "output_dir")
    with exclusive(folder, "output_dir"):
        corpus = config.read_corpus()
        keep_settings(config, corpus)
        tokenizer, reviews, held_out = prepare(config, corpus)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = build_model(config)
        model.to(device)  # type: ignore[arg-type]
        optimizers = build_optimizers(model, config)
        state = load_checkpoint(folder, model, optimizers)
        rows = torch.from_numpy(pack(reviews, config.context))
        if len(rows) < config.batch_size:
            raise InputError("batch_size", config.batch_size, f"at most the {len(rows)} rows of the data")
        if state.step == config.steps:
            print(
                f"{folder} holds a finished run of these settings, {config.steps} steps; nothing is trained."
            )
        train(config, model, optimizers, rows, torch.from_numpy(held_out).to(device), state)
        return finish(model, tokenizer, config, state.log)


def train(
    config: PretrainConfig,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    rows: Tensor,
    validation: Tensor,
    state: Checkpoint,
) -> None:
    """Train from ``state.step`` to ``config.steps``; ``rows`` and ``validation`` are (rows, context)."""
    device = validation.device.type
    # On a processor without bfloat16 arithmetic autocast would take a hundred times longer.
    able = torch.cpu.get_capabilities()
    fast_bf16 = device == "cuda" or any(able.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    forward = torch.compile(model) if config.compile else model
    rates = [config.matrix_learning_rate, config.learning_rate]
    model.train()
    bar = tqdm(total=config.steps, initial=state.step, desc="steps", mininterval=10)
    last = time.perf_counter()
    while state.step < config.steps:
        batch = config.batch(state.step, rows).to(device)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule(state.step, config)
        total = 0.0
        for part in batch.split(config.micro_batch_size):
            with torch.autocast(device, torch.bfloat16, enabled=fast_bf16):
                loss = forward(part, labels=part).loss * (len(part) / len(batch))
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip).item()
        if not math.isfinite(total) or not math.isfinite(norm):
            given = f"{config.learning_rate} and matrix_learning_rate {config.matrix_learning_rate}"
            accepted = (
                f"smaller rates; the loss of step {state.step + 1} is {total}, its gradient's norm {norm}"
            )
            raise InputError("learning_rate", given, accepted)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state.step += 1
        bar.update()
        now = time.perf_counter()
        state.seconds, last = state.seconds + now - last, now
        entry: dict[str, Any] = {
            "step": state.step,
            "tokens": state.step * config.batch_size * config.context,
            "loss": round(total, 4),
            "gradient_norm": round(norm, 4),
            "seconds": round(state.seconds, 1),
        }
        if state.step % config.validate_every == 0 or state.step == config.steps:
            entry["validation_loss"] = round(validation_loss(model, validation, config.micro_batch_size), 4)
            bar.set_postfix(validation=entry["validation_loss"])
        if state.step % config.log_every == 0 or state.step == 1 or "validation_loss" in entry:
            state.log.append(entry)
        if state.step % config.checkpoint_every == 0 or state.step == config.steps:
            save_checkpoint(config.output_dir, model, optimizers, state)
    bar.close()


def finish(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    config: PretrainConfig,
    log: list[dict[str, Any]],
) -> Path:
    """Write the finished model, half precision, with tokenizer, training log and loss curve."""
    tokenizer.model_max_length = config.context
    folder = config.output_dir / "model"
    check_finite(str(folder), model.half().state_dict())
    with tempfile.TemporaryDirectory() as made:
        fresh = Path(made)
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        draw_losses(log, fresh / "loss.svg")
        for file in sorted(fresh.iterdir()):
            write_bytes(folder / file.name, file.read_bytes())
    write_text(folder / "training_log.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in log))
    return folder


def main() -> None:
    """Read ``--name value`` pairs into a PretrainConfig."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, field in PretrainConfig.model_fields.items():
        several = {"nargs": "+"} if name in ("data", "hold_out") else {}
        parser.add_argument(f"--{name}", default=field.default, help=field.description, **several)  # type: ignore[arg-type]
    try:
        print(pretrain(PretrainConfig(**vars(parser.parse_args()))))
    except ValidationError as error:
        parser.exit(2, f"{describe(error, list(PretrainConfig.model_fields))}\n")
    except InputError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
