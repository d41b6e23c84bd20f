"""Verbalizers: the words that stand for each label in a prompt (Schick and Schütze 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True, init=False)
class Verbalizer:
    """The words that stand for each label: ``{"negative": ["terrible"], "positive": ["great"]}``."""

    words: dict[str, tuple[str, ...]]

    def __init__(self, words: Mapping[str, Sequence[str] | str]):
        lists = {name: (w,) if isinstance(w, str) else tuple(w) for name, w in words.items()}
        object.__setattr__(self, "words", lists)
        if len(lists) < 2:
            raise InputError("label_words", dict(words), "words for at least two labels")
        owner: dict[str, str] = {}
        for name, label_words in lists.items():
            if not label_words or not all(w.strip() for w in label_words):
                raise InputError("label_words", f"none for label {name}", "at least one word for each label")
            for word in label_words:
                if owner.setdefault(word, name) != name:
                    given = f"{word} for both {owner[word]} and {name}"
                    raise InputError("label_words", given, "different words for different labels")

    @property
    def labels(self) -> list[str]:
        return list(self.words)
