"""Score texts with a causal language model, and sample from it.

``python -m hybridft_utils.models.scoring --model MODEL --data DATA --out FILE.json`` measures bits per
character on a fixed list of IMDB test reviews.  MODEL is ``builtin:movies``, a Hub id or a folder; DATA
is ``stanfordnlp/imdb`` or a folder with ``train.parquet`` and ``test.parquet``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, DatasetDict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..evidence.provenance import fingerprint, portable, provenance
from ..evidence.statistics import Estimate
from ..files import check_writable, write_json
from ..notebook.progress import progress
from ..reviews.splits import read_splits
from .corpus import clean
from .loading import context_length, load_base

IMDB_REVIEWS, IMDB_TEST_SPLIT = 2_000, 25_000


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id in front of every text: the start token, or the end-of-text token if there is none."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise InputError("tokenizer", type(tokenizer).__name__, "the tokenizer of a causal language model")


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None = None
) -> tuple[list[Tensor], np.ndarray]:
    """The start token and the first ``max_tokens`` tokens of each text, and how many characters they cover.

    White space in front of a covered character counts; of a cut character the first byte decides.
    """
    if not len(texts):
        raise InputError("texts", "none", "at least one text")
    limit = {"truncation": max_tokens is not None, "max_length": max_tokens}
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, **limit)
    for row, ids in enumerate(found.input_ids):
        if not ids:
            raise InputError("texts", f"empty text at index {row}", "texts with at least one token")
    rows = [torch.tensor([start_token(tokenizer), *ids]) for ids in found.input_ids]
    return rows, np.array([offsets[-1][1] for offsets in found.offset_mapping])


@torch.no_grad()
def token_log_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_tokens: int | None = None,
    batch_size: int = 8,
) -> list[Tensor]:
    """Natural log of p(x_t | start token, x_<t) for every token, as one tensor (T,) per text, on the CPU.

    Raises :class:`InputError` for no text, for one that is empty or longer than the model's context,
    and for a model that is not causal.
    """
    if not type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        raise InputError("model", type(model).__name__, "a causal language model")
    rows, _ = encode(tokenizer, texts, max_tokens)
    longest, context = max(map(len, rows)), context_length(model, tokenizer)
    if longest > context:
        raise InputError("texts", f"a text of {longest - 1} tokens", f"at most {context - 1} tokens")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, Tensor] = {}
    for start in progress(range(0, len(order), batch_size), "texts"):
        batch = order[start : start + batch_size]
        # Padding stands on the right, where no token of the text sees it: no mask is needed.
        ids = pad_sequence([rows[i] for i in batch], batch_first=True).to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        for i, loss in zip(batch, losses.view(len(batch), -1).cpu(), strict=True):
            found[i] = -loss[: len(rows[i]) - 1]
    return [found[i] for i in range(len(rows))]


def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int = 255
) -> float:
    """exp of the mean negative log-likelihood per token, over the first ``max_tokens`` of each text."""
    return math.exp(-torch.cat(token_log_probabilities(model, tokenizer, texts, max_tokens)).mean().item())


def bits_and_characters(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int = 255
) -> tuple[np.ndarray, np.ndarray]:
    """−log2 p of each text's first ``max_tokens`` tokens, and the characters they cover: (texts,) each."""
    scored = token_log_probabilities(model, tokenizer, texts, max_tokens)
    bits = np.array([-row.double().sum().item() / math.log(2) for row in scored])
    return bits, encode(tokenizer, texts, max_tokens)[1]


def bits_per_character(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int = 255
) -> float:
    """Bits of all texts divided by their characters, over the first ``max_tokens`` tokens of each text.

    Texts are scored as given: lower-case them if one of the models you compare reads lower case.
    """
    bits, characters = bits_and_characters(model, tokenizer, texts, max_tokens)
    return float(bits.sum() / characters.sum())


def ratio_estimate(above: np.ndarray, below: np.ndarray, resamples: int = 4000, seed: int = 0) -> Estimate:
    """Sum of ``above`` over sum of ``below``, both (texts,), with a 95 % bootstrap interval over texts."""
    size = len(above)
    times = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    low, high = np.percentile((times @ above) / (times @ below), [2.5, 97.5])
    return Estimate(float(above.sum() / below.sum()), float(low), float(high))


def next_token_distribution(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    r"""What the next token is drawn from, (V,): softmax(z / τ), cut to the nucleus, and rescaled.

    The nucleus is the smallest set of likeliest tokens whose probabilities sum to ``top_p`` or more
    (Holtzman et al. 2020, section 3.1).  Temperature 0 puts everything on the likeliest token.
    """
    if temperature < 0:
        raise InputError("temperature", temperature, "0 (greedy) or more")
    if not 0 < top_p <= 1:
        raise InputError("top_p", top_p, "more than 0, and at most 1")
    if temperature == 0:
        return F.one_hot(logits.argmax(), len(logits)).to(logits.dtype)
    ordered, tokens = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    likelier = ordered.cumsum(-1) - ordered  # what the tokens in front of this one have together
    kept = ordered.masked_fill(likelier >= top_p, 0)
    return torch.zeros_like(kept).scatter(-1, tokens, kept / kept.sum())


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_new_tokens: int = 60,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """``prompt`` and its continuation, token by token, up to the end of the text or of the context."""
    generator = torch.Generator().manual_seed(seed)
    ids = [start_token(tokenizer), *tokenizer(prompt, add_special_tokens=False).input_ids]
    unread, cache = ids, None  # the cache keeps what the model has read already
    for _ in range(min(max_new_tokens, context_length(model, tokenizer) - len(ids))):
        given = torch.tensor([unread], device=model.device)
        output = model(input_ids=given, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        p = next_token_distribution(output.logits[0, -1].float().cpu(), temperature, top_p)
        unread = [int(torch.multinomial(p, 1, generator=generator))]
        if unread == [tokenizer.eos_token_id]:
            break
        ids = ids + unread
    return str(tokenizer.decode(ids[1:])).strip()


def imdb_bits_per_character(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str = "stanfordnlp/imdb"
) -> dict[str, Any]:
    """Bits per character on 2,000 fixed IMDB test reviews, lower-cased and without line-break tags."""
    test = read_splits(source).get("test", ())
    if len(test) != IMDB_TEST_SPLIT:
        raise InputError("data", f"{source} with {len(test)} test reviews", f"IMDB, with {IMDB_TEST_SPLIT}")
    chosen = sorted(np.random.default_rng(0).choice(IMDB_TEST_SPLIT, IMDB_REVIEWS, replace=False))
    reviews = test.iloc[chosen]
    bits, characters = bits_and_characters(model, tokenizer, [clean(text) for text in reviews["text"]])
    found = ratio_estimate(bits, characters)
    return {
        "bits_per_character": found.mean,
        "interval": [found.low, found.high],
        "reviews": len(bits),
        "characters": int(characters.sum()),
        "data": fingerprint(DatasetDict({"test": Dataset.from_pandas(reviews, preserve_index=False)})),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="builtin:movies")
    parser.add_argument("--data", default="stanfordnlp/imdb")
    parser.add_argument("--out", required=True, help="JSON file to write")
    given = parser.parse_args()
    try:
        check_writable(Path(given.out).parent, "out")
        found = imdb_bits_per_character(*load_base(given.model), given.data)
    except InputError as error:
        raise SystemExit(str(error)) from error
    names = {"model": portable(given.model), "source": portable(given.data)}
    write_json(given.out, {**found, **names, "provenance": provenance()})
    print(
        "{bits_per_character:.3f} bits per character, {interval[0]:.3f} to {interval[1]:.3f}".format(**found)
    )


if __name__ == "__main__":
    main()
