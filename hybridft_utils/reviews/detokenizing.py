"""Undo tokenisation, as SST-2's sentences need it."""

from __future__ import annotations

import re


def detokenized(text: str) -> str:
    """Undo the spaces that a treebank tokeniser put in: "it 's n't bad ." becomes "it's n't bad."."""
    text = re.sub(r" (n't|'\w+)\b", r"\1", text)
    text = text.replace("-lrb-", "(").replace("-rrb-", ")").replace("``", '"').replace("''", '"')
    text = re.sub(r" ([.,:;?!%)\]])", r"\1", text)
    return re.sub(r"([(\[$]) ", r"\1", text).strip()
