"""``check_mine``: one call that grades what a reader wrote in an exercise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InputError
from .answers import Wrong
from .attention import attention, hybrid_layer, prefix_attention
from .counting import bpe_merge, macro_f1
from .fine_tuning import train_epoch
from .gradients import cross_entropy_gradient
from .layers import adapter, lora_layer, soft_prompt
from .sample_size import texts_needed
from .scoring import label_probabilities

#: Each exercise's name and its grader, which returns nothing for a right answer and raises Wrong for another.
GRADERS: dict[str, Callable[[Any], None]] = {
    "01.bpe_merge": bpe_merge,
    "02.cross_entropy_gradient": cross_entropy_gradient,
    "03.attention": attention,
    "04.macro_f1": macro_f1,
    "04.train_epoch": train_epoch,
    "05.soft_prompt": soft_prompt,
    "06.lora_layer": lora_layer,
    "07.prefix_attention": prefix_attention,
    "08.adapter": adapter,
    "09.hybrid_layer": hybrid_layer,
    "10.label_probabilities": label_probabilities,
    "11.texts_needed": texts_needed,
}


@dataclass(frozen=True, repr=False)
class Grade:
    """True where the answer is right; shown as one sentence."""

    name: str
    problem: str = ""

    def __bool__(self) -> bool:
        return not self.problem

    def __repr__(self) -> str:
        return f"{self.name}: not yet: {self.problem}." if self.problem else f"{self.name}: right."


def check_mine(name: str, mine: Any) -> Grade:
    """Run the book's checks of exercise ``name`` on your function or class ``mine``.

    Returns a :class:`Grade`: true or false, and one sentence that says what is wrong and for which input.
    Mistakes in ``mine`` never raise.  Each grader's docstring, in this room, says what ``mine`` is called
    with.  Inputs are float32 whatever the default dtype is.  The random state and the default dtype stay as
    they were.

    Raises :class:`InputError` for a name that no exercise has.
    """
    if not isinstance(name, str) or name not in GRADERS:
        raise InputError("name", name, f"one of {', '.join(GRADERS)}")
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        try:
            GRADERS[name](mine)
        except Wrong as wrong:
            return Grade(name, str(wrong))
        finally:
            torch.set_default_dtype(default)
    return Grade(name)
