"""Prompt templates and verbalizers: a classification task as a language modelling task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError

TEXT, LABEL = "{text}", "{label}"


@dataclass(frozen=True)
class PromptTemplate:
    """A text with one slot for the review and one for the label word.

    >>> PromptTemplate("{text} It was {label}.").fill("Lovely.", "great")
    'Lovely. It was great.'
    """

    pattern: str = "{text} It was {label}."

    def __post_init__(self) -> None:
        for slot in (TEXT, LABEL):
            if self.pattern.count(slot) != 1:
                raise InputError("template", self.pattern, f"a text with {TEXT} and {LABEL} once each")
        unknown = re.findall(r"{.*?}", self.pattern.replace(TEXT, "").replace(LABEL, ""))
        if unknown:
            raise InputError("template", self.pattern, f"no slot besides {TEXT} and {LABEL}")

    @property
    def label_last(self) -> bool:
        """Whether the label comes after the text, as causal models need it."""
        return self.pattern.index(LABEL) > self.pattern.index(TEXT)

    @property
    def label_space(self) -> str:
        """The white space in front of the label; tokenizers count it to the label's first token."""
        before = self.pattern[: self.pattern.index(LABEL)]
        return before[len(before.rstrip()) :]

    def fill(self, text: str, label: str) -> str:
        """The whole prompt."""
        return self.pattern.replace(LABEL, label).replace(TEXT, text)

    def context(self, text: str) -> str:
        """The prompt up to the label, without the white space in front of it."""
        return self.pattern[: self.pattern.index(LABEL)].rstrip().replace(TEXT, text)


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
