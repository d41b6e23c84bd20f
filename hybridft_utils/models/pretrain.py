"""Pre-train ``builtin:movies``, the small language model that ships with the book.

``python -m hybridft_utils.models.pretrain --data DATA --output_dir FOLDER`` trains a tokenizer and a
causal Llama of about 5 M parameters on the IMDB reviews outside the test split.  DATA is a Hub id
(``stanfordnlp/imdb``) or a folder with ``train.parquet`` and ``unsupervised.parquet``.

A row of training data is filled up with reviews; where the last one is cut, its rest begins the next
row.  The matrices inside the layers are updated by Muon (Jordan et al. 2024), all
other parameters by AdamW; the learning rates warm up linearly and fall along a cosine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..errors import InputError, describe
from ..files import write_bytes

START, PAD = "<s>", "<pad>"


class PretrainConfig(BaseModel):
    """Everything that decides the shipped weights; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field("stanfordnlp/imdb", description="Hub id or folder of parquet files")
    output_dir: Path = Field(Path("runs/movies"), description="finished model, outside the package")
    vocabulary_size: int = Field(8192, ge=300)
    hidden_size: int = Field(256, ge=8)
    intermediate_size: int = Field(688, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    context: int = Field(256, ge=8, description="tokens a row")
    batch_size: int = Field(16, ge=1, description="rows an optimiser step")
    micro_batch_size: int = Field(8, ge=1, description="rows a forward pass")
    steps: int = Field(11200, ge=1, description="optimiser steps")
    warmup_steps: int = Field(60, ge=0)
    matrix_learning_rate: float = Field(0.02, gt=0, description="Muon")
    learning_rate: float = Field(0.004, gt=0, description="AdamW")
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    validation_reviews: int = Field(256, ge=1)
    validate_every: int = Field(400, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    log_every: int = Field(10, ge=1)
    seed: int = 0
    compile: bool = False


def read_texts(data: str) -> list[str]:
    """The 75,000 IMDB reviews outside the test split, without line-break tags, lower-cased."""
    from datasets import concatenate_datasets, load_dataset

    if Path(data).is_dir():
        missing = [s for s in ("train", "unsupervised") if not (Path(data) / f"{s}.parquet").is_file()]
        if missing:
            raise InputError("data", data, f"a folder with {missing[0]}.parquet, or a Hub id")
        files = [str(Path(data) / f"{split}.parquet") for split in ("train", "unsupervised")]
        rows = load_dataset("parquet", data_files=files, split="train")
    else:
        rows = concatenate_datasets([load_dataset(data, split=s) for s in ("train", "unsupervised")])
    return [clean(text) for text in rows["text"]]


def clean(text: str) -> str:
    """One review as the model reads it: no ``<br />``, single spaces, lower case."""
    return " ".join(text.replace("<br />", " ").split()).lower()


def train_tokenizer(texts: list[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE that puts ``<s>`` before every text."""
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[PAD, START],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    start = core.token_to_id(START)
    core.post_processor = Sequence(
        [
            ByteLevel(trim_offsets=True),
            TemplateProcessing(single=f"{START} $A", special_tokens=[(START, start)]),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=START, eos_token=START, pad_token=PAD, padding_side="right"
    )


def pack(reviews: list[list[int]], context: int) -> np.ndarray:
    """Rows of ``context`` tokens, (rows, context); only what is left at the very end is lost.

    Each row begins with the start token: a review's own, or one put before what the last row cut off.
    """
    rows: list[list[int]] = []
    row: list[int] = []
    for review in reviews:
        rest = review
        while rest:
            taken = rest[: context - len(row)]
            row, rest = row + taken, rest[len(taken) :]
            if len(row) == context:
                rows.append(row)
                row, rest = [], review[:1] + rest if rest else []
    return np.array(rows, dtype=np.int64)


def orthogonalise(updates: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices to ``updates`` (count, rows, columns), by Newton-Schulz."""
    x = updates / updates.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised (Jordan et al. 2024), for weight matrices.

    ``torch.optim.Muon`` computes the same in bfloat16, which a processor without it does a hundred
    times slower than float32; here matrices of one shape are also handled in one batch.
    """

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), params in by_shape.items():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    assert p.grad is not None, "Muon needs a gradient for every matrix"
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    update = p.grad.lerp(buffer, group["momentum"])
                    updates.append(update.T if rows > columns else update)
                for p, update in zip(params, orthogonalise(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    scale = max(1.0, rows / columns) ** 0.5
                    p.sub_(update.T if rows > columns else update, alpha=group["lr"] * scale)


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
    """Mean negative log-likelihood in nats a token of ``rows`` (rows, context)."""
    model.eval()
    losses = [model(b, labels=b).loss.item() * len(b) for b in rows.split(batch_size)]
    model.train()
    return sum(losses) / len(rows)


def save_atomically(state: dict, path: Path) -> None:
    """Write ``state`` beside ``path`` and move it there, so that a kill leaves the old file."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def prepare(config: PretrainConfig) -> tuple[PreTrainedTokenizerFast, list[list[int]], np.ndarray]:
    """Tokenizer, training reviews as token ids and validation rows; kept in ``output_dir``."""
    folder, cache = config.output_dir, config.output_dir / "reviews.npz"
    if not cache.exists():
        texts = read_texts(config.data)
        tokenizer = train_tokenizer(texts, config.vocabulary_size)
        tokenizer.save_pretrained(folder)
        batches = [texts[i : i + 1000] for i in range(0, len(texts), 1000)]
        ids = [np.array(r, np.uint16) for b in tqdm(batches, "tokens") for r in tokenizer(b).input_ids]
        partial = folder / "partial.npz"
        np.savez(partial, ids=np.concatenate(ids), lengths=[len(r) for r in ids])
        os.replace(partial, cache)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    kept = np.load(cache)
    reviews = [r.tolist() for r in np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])]
    order = np.random.default_rng(config.seed).permutation(len(reviews))
    held_out, training = order[: config.validation_reviews], order[config.validation_reviews :]
    validation = pack([reviews[i] for i in held_out], config.context)
    return tokenizer, [reviews[i] for i in training], validation


def pretrain(config: PretrainConfig) -> None:
    """Train, or go on after a kill exactly where the last checkpoint stands."""
    folder = config.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, reviews, held_out = prepare(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a processor without bfloat16 arithmetic autocast would be a hundred times slower.
    able = torch.cpu.get_capabilities()
    fast_bf16 = device == "cuda" or any(able.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    model = build_model(config)
    model.to(device)  # type: ignore[arg-type]
    optimizers = build_optimizers(model, config)
    rates = [o.param_groups[0]["lr"] for o in optimizers]
    validation = torch.from_numpy(held_out).to(device)
    checkpoint, log = folder / "checkpoint.pt", folder / "log.jsonl"
    step, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, seconds = state["step"], state["seconds"]
        kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(f"{line}\n" for line in kept))
    forward = torch.compile(model) if config.compile else model
    model.train()
    rows = pack(reviews, config.context)
    steps_a_pass, pass_number = len(rows) // config.batch_size, -1
    if not steps_a_pass:
        raise InputError("batch_size", config.batch_size, f"at most the {len(rows)} rows of the data")
    bar = tqdm(total=config.steps, initial=step, desc="steps", mininterval=10)
    last = time.perf_counter()
    while step < config.steps:
        # The batch is a function of the step alone, so a continued run sees the same batches.
        if step // steps_a_pass != pass_number:
            pass_number = step // steps_a_pass
            order = np.random.default_rng([config.seed, pass_number]).permutation(len(rows))
        begin = step % steps_a_pass * config.batch_size
        batch = torch.from_numpy(rows[order[begin : begin + config.batch_size]]).to(device)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule(step, config)
        total = 0.0
        for part in batch.split(config.micro_batch_size):
            with torch.autocast(device, torch.bfloat16, enabled=fast_bf16):
                loss = forward(part, labels=part).loss * (len(part) / len(batch))
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        bar.update()
        now = time.perf_counter()
        seconds, last = seconds + now - last, now
        entry = {
            "step": step,
            "tokens": step * config.batch_size * config.context,
            "loss": round(total, 4),
            "gradient_norm": round(norm.item(), 4),
            "seconds": round(seconds, 1),
        }
        if step % config.validate_every == 0 or step == config.steps:
            entry["validation_loss"] = round(validation_loss(model, validation, config.micro_batch_size), 4)
            bar.set_postfix(validation=entry["validation_loss"])
        if step % config.log_every == 0 or step == 1 or "validation_loss" in entry:
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        if step % config.checkpoint_every == 0 or step == config.steps:
            states = [o.state_dict() for o in optimizers]
            save_atomically(
                {"model": model.state_dict(), "optimizers": states, "step": step, "seconds": seconds},
                checkpoint,
            )
    bar.close()
    finish(model, tokenizer, config)


def finish(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig) -> None:
    """Write the finished model, half precision, with tokenizer, training log and loss curve."""
    tokenizer.model_max_length = config.context
    with tempfile.TemporaryDirectory() as made:
        fresh = Path(made)
        model.half().save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        shutil.copy(config.output_dir / "log.jsonl", fresh / "training_log.jsonl")
        draw_losses(fresh / "training_log.jsonl", fresh / "loss.svg")
        for file in sorted(fresh.iterdir()):
            write_bytes(config.output_dir / "model" / file.name, file.read_bytes())


def draw_losses(log: Path, picture: Path) -> None:
    """The training log as a picture: loss of each logged batch, and the loss on held-out reviews."""
    import matplotlib.pyplot as plt

    from ..notebook.figures import FROZEN, TRAINED, use_style

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    validated = [e for e in entries if "validation_loss" in e]
    with plt.rc_context():
        use_style()
        figure, ax = plt.subplots()
        ax.plot(
            [e["tokens"] for e in entries],
            [e["loss"] for e in entries],
            color=FROZEN,
            lw=0.6,
            label="training",
        )
        ax.plot(
            [e["tokens"] for e in validated],
            [e["validation_loss"] for e in validated],
            "o-",
            ms=3,
            color=TRAINED,
            label="held-out reviews",
        )
        ax.set(xlabel="tokens seen", ylabel="loss, nats a token", ylim=(3.5, 6.5))
        ax.legend()
        figure.savefig(picture, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    """Read ``--name value`` pairs into a PretrainConfig."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, field in PretrainConfig.model_fields.items():
        parser.add_argument(f"--{name}", default=field.default, help=field.description)
    try:
        config = PretrainConfig(**vars(parser.parse_args()))
    except ValidationError as error:
        parser.error(str(describe(error, list(PretrainConfig.model_fields))))
    pretrain(config)


if __name__ == "__main__":
    main()
