"""From settings to a trained classifier: build it on the untouched base model, attach methods, train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from accelerate.utils import set_seed
from datasets import DatasetDict

from ..classifiers.classifier import Classifier
from ..classifiers.head_classifier import HeadClassifier
from ..classifiers.prompt_classifier import PromptClassifier
from ..classifiers.template import PromptTemplate
from ..classifiers.verbalizer import Verbalizer
from ..errors import InputError
from ..methods.architectures import find_architecture
from ..methods.baselines import HeadOnly
from ..methods.parts import Method
from ..models.loading import load_base
from ..tuning.attach import Tuning, attach
from .config import RunConfig
from .splits import as_split, subset
from .training import Epoch, check_precision, train


@dataclass
class Tuned:
    """A classifier after :func:`fine_tune`; ``tuning`` is None where nothing was trained."""

    classifier: Classifier
    tuning: Tuning | None = None
    history: list[Epoch] = field(default_factory=list)

    @property
    def best(self) -> Epoch:
        """The epoch whose parameters were kept."""
        return min(self.history, key=lambda e: e.validation_loss)


def fine_tune(
    config: RunConfig,
    methods: Sequence[Method],
    seed: int,
    data: DatasetDict,
    *,
    gating: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Train ``methods`` together on the untouched base model; without methods nothing is trained.

    ``seed`` draws the training and validation reviews, the new parameters and the order of batches.
    """
    set_seed(seed)
    classifier = build_classifier(config, label_names(data), head=trains_head(methods))
    if not methods:
        return Tuned(classifier)
    return tune(config, classifier, put(classifier, methods, gating), seed, data, say)


def tune(
    config: RunConfig,
    classifier: Classifier,
    tuning: Tuning,
    seed: int,
    data: DatasetDict,
    say: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Train ``tuning``, which is attached to ``classifier``, on the texts that ``config`` and ``seed`` draw."""
    say(str(tuning.count()))
    history = train(
        classifier,
        tuning,
        as_split(subset(data["train"], config.train_size, seed)),
        as_split(subset(data["validation"], config.validation_size, seed, "validation_size")),
        learning_rate=config.rates(),
        epochs=config.epochs,
        batch_size=config.batch_size,
        warmup=config.warmup,
        weight_decay=config.weight_decay,
        clip=config.clip,
        seed=seed,
        precision=config.precision,
        report=lambda epoch: say(epoch_line(epoch, config.epochs)),
    )
    return Tuned(classifier, tuning, history)


def rehearse(config: RunConfig, data: DatasetDict) -> None:
    """Refuse before the first training what would be refused at a later one.

    Draws every subset, attaches every method and reads the longest text with it.
    """
    check_precision(config.precision)
    config.rates()
    for seed in config.seeds:
        subset(data["train"], config.train_size, seed)
        subset(data["validation"], config.validation_size, seed, "validation_size")
    longest = max((text for rows in data.values() for text in rows["text"]), key=len)
    classifiers: dict[bool, Classifier] = {}
    for name in config.methods:
        methods = () if name == "zero-shot" else config.build(name)
        head = trains_head(methods)
        if head not in classifiers:
            classifiers[head] = build_classifier(config, label_names(data), head=head)
        classifier = classifiers[head]
        if not methods and not isinstance(classifier, PromptClassifier):
            raise InputError("methods", name, "zero-shot only with a language model and label words")
        tuning = put(classifier, methods, None) if methods else None
        classifier.predict_logits([longest])
        if tuning is not None:
            tuning.detach()


def put(classifier: Classifier, methods: Sequence[Method], gating: str | None) -> Tuning:
    """Attach ``methods``; a new head, which HeadOnly trains itself, is also trained beside other methods."""
    has_head = isinstance(classifier, HeadClassifier) and not trains_head(methods)
    return attach(classifier, *methods, also_train=("head",) if has_head else (), gating=gating)


def trains_head(methods: Sequence[Method]) -> bool:
    return any(isinstance(m, HeadOnly) for m in methods)


def label_names(data: DatasetDict) -> list[str]:
    return data["train"].features["label"].names


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One epoch's line, with the number of epochs."""
    return str(epoch).replace(f"Epoch {epoch.epoch}", f"Epoch {epoch.epoch}/{epochs}", 1)


def build_classifier(config: RunConfig, labels: list[str], head: bool = False) -> Classifier:
    """The classifier on the untouched base model: a prompt if the model has a language head, else a new head.

    ``head``, or ``classifier="head"`` in ``config``, asks for a new head in any case.  With ``calibrate`` a
    prompt's label words start calibrated, so that tuning need not first learn their prior.
    """
    model, tokenizer = load_base(config.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    architecture = find_architecture(model)
    speaks = architecture.head is not None and hasattr(model, architecture.head)
    if config.classifier == "prompt" and not speaks:
        raise InputError("classifier", "prompt", f"'head' or 'auto' for {type(model).__name__}")
    if head or config.classifier == "head" or not speaks:
        made = HeadClassifier(model, tokenizer, labels, config.pooling, max_length=config.max_length)
        return made.to(device)
    check_labels(config, labels)
    template, verbalizer = PromptTemplate(config.template), Verbalizer(config.label_words)
    words = Verbalizer({label: verbalizer.words[label] for label in labels})
    prompted = PromptClassifier(model, tokenizer, template, words, config.max_length).to(device)
    if config.calibrate:
        prompted.calibrate()
    return prompted


def check_labels(config: RunConfig, labels: list[str]) -> None:
    """Refuse label words that do not name exactly the labels of the data, where they are used."""
    if config.classifier != "head" and set(config.label_words) != set(labels):
        given = ", ".join(config.label_words)
        raise InputError("label_words", given, f"words for exactly the labels {', '.join(labels)}")
