"""A character trigram with interpolated Kneser-Ney smoothing: the yardstick of a character-level model.

``python -m hybridft_utils.models.trigram --data DATA ... --hold_out SOURCE ... --model MODEL --out FILE``
measures bits per character of both on the held-out texts of each SOURCE, with the vocabulary of MODEL, and
writes them into FILE as JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from ..evidence.provenance import portable, provenance
from ..files import check_writable, write_json
from .corpus import held_out_part, read_corpus
from .loading import load_base
from .scoring import bits_and_characters, encode, ratio_estimate

DISCOUNTS = (0.5, 0.7, 0.8, 0.9, 0.95)


class Trigram:
    r"""p(c | a, b) by interpolated Kneser-Ney (Chen and Goodman 1999, section 4.1.6), over token ids.

    .. math:: p(c \mid a, b) = \frac{\max(n(abc) - D_3, 0) + D_3 N(ab\cdot)\, p(c \mid b)}{n(ab)}

    N(ab·) is the number of different characters seen after ab.  The lower orders count the different
    characters *before* bc and c, and end at the uniform distribution.
    """

    def __init__(self, rows: Sequence[np.ndarray], vocabulary_size: int):
        """``rows`` are the token ids of each text, with the start token in front."""
        self.size = vocabulary_size
        triples = np.concatenate([windows(row) for row in rows])
        seen, counts = np.unique(self.key(*triples.T), return_counts=True)
        a, b, c = seen // self.size**2, seen // self.size % self.size, seen % self.size
        pairs, pair_counts = np.unique(self.key(0, b, c), return_counts=True)
        single = np.bincount(pairs % self.size, minlength=self.size)
        #: For each order: its keys and their counts, and those of its contexts (total, distinct).
        self.orders = [
            (seen, counts, *contexts(self.key(0, a, b), counts)),
            (pairs, pair_counts, *contexts(pairs // self.size, pair_counts)),
        ]
        self.single = single
        self.discounts: tuple[float, ...] = (0.9, 0.9, 0.9)

    def key(self, a, b, c):
        return (np.int64(1) * a * self.size + b) * self.size + c

    def bits(self, row: np.ndarray) -> np.ndarray:
        """-log2 p of each token of a text after its start token, (T,)."""
        a, b, c = windows(row).T
        d3, d2, d1 = self.discounts
        total = self.single.sum()
        p = np.maximum(self.single[c] - d1, 0) / total + d1 * (self.single > 0).sum() / total / self.size
        for (keys, counts, *seen), context, key, d in (
            (self.orders[1], b, self.key(0, b, c), d2),
            (self.orders[0], self.key(0, a, b), self.key(a, b, c), d3),
        ):
            totals, kinds = look_up(seen[0], seen[1], context), look_up(seen[0], seen[2], context)
            own = np.maximum(look_up(keys, counts, key) - d, 0)
            p = np.where(totals > 0, (own + d * kinds * p) / np.maximum(totals, 1), p)
        return -np.log2(p)

    def tune(self, rows: Sequence[np.ndarray]) -> None:
        """Choose the three discounts that predict ``rows`` best."""
        scores = {}
        for self.discounts in product(DISCOUNTS, repeat=3):
            scores[self.discounts] = sum(self.bits(row).sum() for row in rows)
        self.discounts = min(scores, key=lambda discounts: scores[discounts])


def windows(row: np.ndarray) -> np.ndarray:
    """Each token of a text after its start token, with the two before it: (T, 3)."""
    padded = np.concatenate([row[:1], row])
    return np.lib.stride_tricks.sliding_window_view(padded, 3)


def contexts(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct contexts, how often each occurs, and with how many different characters."""
    found, places = np.unique(keys, return_inverse=True)
    return found, np.bincount(places, weights=counts), np.bincount(places)


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 for those that are not there; ``keys`` are sorted."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def fit(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], validation: int = 256) -> Trigram:
    """A trigram of ``texts``, whose discounts are tuned on some of them that were left out of the counts."""
    rows = [row.numpy() for row in encode(tokenizer, texts)[0]]
    order = np.random.default_rng(0).permutation(len(rows))
    trigram = Trigram([rows[i] for i in order[validation:]], len(tokenizer))
    trigram.tune([rows[i] for i in order[:validation]])
    return trigram


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="the sources the model was trained on")
    parser.add_argument("--hold_out", nargs="+", required=True, help="sources whose test parts are scored")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True, help="JSON file to write")
    given = parser.parse_args()
    try:
        check_writable(Path(given.out).parent, "out")
        model, tokenizer = load_base(given.model)
        trigram = fit(tokenizer, read_corpus(given.data, given.hold_out).training)
        found: dict[str, dict[str, Any]] = {}
        for source in given.hold_out:
            texts = held_out_part(source)
            bits, characters = bits_and_characters(model, tokenizer, texts)
            rows = [row.numpy() for row in encode(tokenizer, texts, 255)[0]]
            plain = np.array([trigram.bits(row).sum() for row in rows])
            unknown = np.mean(np.concatenate(rows) == tokenizer.unk_token_id)
            found["/".join(Path(source).parts[-2:])] = {
                "texts": len(texts),
                "characters": int(characters.sum()),
                "unknown": float(unknown),
                "model": vars(ratio_estimate(bits, characters)),
                "trigram": vars(ratio_estimate(plain, characters)),
                "ratio": vars(ratio_estimate(bits, plain)),
            }
    except InputError as error:
        parser.exit(2, f"{error}\n")
    settings = {"model": portable(given.model), "discounts": trigram.discounts}
    write_json(given.out, {"held_out": found, **settings, "provenance": provenance()})
    for source, row in found.items():
        model_bits, trigram_bits = row["model"]["mean"], row["trigram"]["mean"]
        share = f"{row['ratio']['mean']:.1%} of the trigram's {trigram_bits:.3f}"
        print(f"{source}: {model_bits:.3f} bits per character, {share}")


if __name__ == "__main__":
    main()
