"""Prompt templates: a classification task as a language modelling task (Schick and Schütze 2021)."""

from __future__ import annotations

import re
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
        return text.join(part.replace(LABEL, label) for part in self.pattern.split(TEXT))

    def context(self, text: str) -> str:
        """The prompt up to the label, without the white space in front of it."""
        return self.pattern[: self.pattern.index(LABEL)].rstrip().replace(TEXT, text)
