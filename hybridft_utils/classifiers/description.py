"""A classifier from its description: the inverse of ``Classifier.describe()``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..errors import describe as first_problem
from .classifier import Classifier
from .head_classifier import HeadClassifier
from .prompt_classifier import PromptClassifier
from .template import PromptTemplate
from .verbalizer import Verbalizer


class Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    labels: list[str]
    max_length: int


class PromptDescription(Description):
    kind: Literal["prompt"]
    template: str
    label_words: dict[str, list[str]]
    prior: list[FiniteFloat]


class HeadDescription(Description):
    kind: Literal["head"]
    pooling: Literal["mean", "cls", "last"]
    dropout: FiniteFloat


KINDS: dict[str, type[Description]] = {"prompt": PromptDescription, "head": HeadDescription}


def restore(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, described: dict[str, Any]
) -> Classifier:
    """The classifier that ``describe()`` described, on ``model`` and on its device.

    A prompt classifier gives the same logits as before, its calibration included.  The weights of a head
    classifier's head are drawn anew: they come with the tuning that trained them.

    Raises :class:`InputError` for a damaged description, naming the setting at fault, and for a description
    that does not fit the model, such as label words that its tokenizer does not tell apart.
    """
    kind = described.get("kind") if isinstance(described, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError("classifier", described, f"a description with kind {' or '.join(KINDS)}")
    try:
        read = KINDS[kind].model_validate(described)
    except ValidationError as error:
        raise first_problem(error, list(KINDS[kind].model_fields)) from None
    made: Classifier
    if isinstance(read, HeadDescription):
        made = HeadClassifier(model, tokenizer, read.labels, read.pooling, read.dropout, read.max_length)
    else:
        assert isinstance(read, PromptDescription)
        made = prompt_classifier(model, tokenizer, read)
    return made.to(model.device)


def prompt_classifier(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, read: PromptDescription
) -> PromptClassifier:
    """The prompt classifier, its prior put in place."""
    if read.labels != list(read.label_words) or len(read.prior) != len(read.labels):
        given = f"{read.labels} with words for {list(read.label_words)} and {len(read.prior)} priors"
        raise InputError("labels", given, "words and a prior for each label, in the labels' order")
    template, verbalizer = PromptTemplate(read.template), Verbalizer(read.label_words)
    made = PromptClassifier(model, tokenizer, template, verbalizer, read.max_length)
    made.prior = made.prior.new_tensor(read.prior)
    return made
