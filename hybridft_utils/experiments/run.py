"""A sentiment run: several methods, several seeds, one table; the function behind notebook 10."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from datasets import Dataset, DatasetDict
from sklearn.model_selection import train_test_split

from ..classifiers.bag_of_words import majority, tfidf_regression
from ..classifiers.classifier import Classifier
from ..classifiers.head_classifier import HeadClassifier
from ..classifiers.prompt_classifier import PromptClassifier
from ..classifiers.template import PromptTemplate
from ..classifiers.verbalizer import Verbalizer
from ..errors import InputError
from ..files import write_json, write_text
from ..methods.architectures import find_architecture
from ..methods.baselines import HeadOnly
from ..methods.parts import Method
from ..models.loading import load_base
from ..tuning.attach import Tuning, attach
from .config import RunConfig
from .provenance import fingerprint, portable, provenance
from .statistics import scores
from .training import Epoch, Split, as_rows, train

#: Settings that may hold folders of one machine.
PATHS = ("model", "dataset", "output_dir")
MAJORITY, BAG_OF_WORDS = "majority class", "TF-IDF + logistic regression"


@dataclass
class MethodResult:
    """One method with one seed; ``predictions`` are label indices of the test texts in order.

    ``validation_accuracy`` is that of the parameters (the epoch, the C) that were kept.
    """

    method: str
    seed: int
    test: dict[str, Any]
    predictions: list[int]
    trained: int = 0
    total: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    validation_accuracy: float | None = None
    seconds: float = 0.0
    tuning: str | None = None
    note: str = ""


@dataclass
class RunResult:
    """All results of a run, with what is needed to repeat it."""

    config: dict[str, Any]
    labels: list[str]
    test_labels: list[int]
    results: list[MethodResult]
    provenance: dict[str, Any]

    def correct(self, method: str) -> np.ndarray:
        """1 where a test text was classified correctly, (seeds, texts)."""
        rows = [r.predictions for r in sorted(self.results, key=lambda r: r.seed) if r.method == method]
        if not rows:
            known = ", ".join(dict.fromkeys(r.method for r in self.results))
            raise InputError("method", method, f"a method of this run: {known}")
        return (np.array(rows) == np.array(self.test_labels)).astype(int)

    def table(self) -> pd.DataFrame:
        """A row a method, in percent: mean accuracy on validation and on test, its standard deviation over seeds."""
        rows = []
        for method in dict.fromkeys(r.method for r in self.results):
            own = [r for r in self.results if r.method == method]
            accuracy = [100 * r.test["accuracy"] for r in own]
            rows.append(
                {
                    "method": method,
                    "validation": np.mean(
                        [
                            np.nan if r.validation_accuracy is None else 100 * r.validation_accuracy
                            for r in own
                        ]
                    ),
                    "accuracy": np.mean(accuracy),
                    "std": np.std(accuracy, ddof=1) if len(own) > 1 else float("nan"),
                    "macro F1": np.mean([100 * r.test["macro_f1"] for r in own]),
                    "trained": own[0].trained,
                    "trained %": 100 * own[0].trained / own[0].total if own[0].total else 0.0,
                    "seconds": np.mean([r.seconds for r in own]),
                    "seeds": len(own),
                }
            )
        return pd.DataFrame(rows).set_index("method")

    def save(self, path: str | Path) -> None:
        """Write everything as JSON in one step."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> RunResult:
        """Read what :meth:`save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        content["results"] = [MethodResult(**r) for r in content["results"]]
        return cls(**content)


def run(config: RunConfig, report: Callable[[str], None] | None = print) -> RunResult:
    """Train and test every method of ``config`` with every seed.

    The test split is read once for each finished model.  Tunings are saved in folders of
    ``output_dir``, results in ``output_dir/results.json``.  ``report`` gets lines of progress.
    """
    say = report or (lambda line: None)
    data = config.load_data()
    labels = data["train"].features["label"].names
    check_labels(config, labels)
    config.rates()
    test = as_split(data["test"])
    results = []
    for seed in config.seeds if config.train_size else config.seeds[:1]:
        results += baselines(config, seed, data, labels, test)
    for line in results:
        say(f"{line.method}: accuracy {100 * line.test['accuracy']:.1f}% on test")
    finished = Finished(config, data)
    for method in config.methods:
        for seed in config.seeds[:1] if method == "zero-shot" else config.seeds:
            say(f"\n{method}, seed {seed}")
            result = finished.get(method, seed) or run_method(config, method, seed, data, test, say)
            finished.keep(result)
            say(f"{method}, seed {seed}: accuracy {100 * result.test['accuracy']:.1f}% on test")
            results.append(result)
    whole = RunResult(
        config={n: portable(v) if n in PATHS else v for n, v in config.model_dump().items()},
        labels=labels,
        test_labels=list(test.labels),
        results=results,
        provenance={**provenance(), "data": fingerprint(data), "command": command(config)},
    )
    whole.save(Path(config.output_dir) / "results.json")
    finished.forget()
    return whole


class Finished:
    """Results of a run that is not over yet, so that with ``resume`` a killed run goes on behind them.

    They count only for the same settings and data; the whole run's results take their place.
    """

    def __init__(self, config: RunConfig, data: DatasetDict):
        settings = config.model_dump(mode="json", exclude={"output_dir", "resume"})
        self.head = json.dumps({"settings": settings, "data": fingerprint(data)}, sort_keys=True)
        self.path = Path(config.output_dir) / "finished.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        same = config.resume and lines[:1] == [self.head]
        self.results = [MethodResult(**json.loads(line)) for line in lines[1:]] if same else []

    def get(self, method: str, seed: int) -> MethodResult | None:
        return next((r for r in self.results if (r.method, r.seed) == (method, seed)), None)

    def keep(self, result: MethodResult) -> None:
        if result not in self.results:
            self.results.append(result)
        rows = [json.dumps(asdict(r)) for r in self.results]
        write_text(self.path, "\n".join([self.head, *rows]) + "\n")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


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
    trains_head = any(isinstance(m, HeadOnly) for m in methods)
    classifier = build_classifier(config, data["train"].features["label"].names, head=trains_head)
    if not methods:
        return Tuned(classifier)
    # HeadOnly trains the head itself; beside other methods it is trained as well.
    has_head = isinstance(classifier, HeadClassifier) and not trains_head
    tuning = attach(classifier, *methods, also_train=("head",) if has_head else (), gating=gating)
    say(str(tuning.count()))
    history = train(
        classifier,
        tuning,
        as_split(subset(data["train"], config.train_size, seed)),
        as_split(subset(data["validation"], config.validation_size, seed)),
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


def run_method(
    config: RunConfig, method: str, seed: int, data: DatasetDict, test: Split, say: Callable[[str], None]
) -> MethodResult:
    """One method with one seed, from the untouched base model."""
    start = time.perf_counter()
    zero_shot = method == "zero-shot"
    tuned = fine_tune(config, () if zero_shot else config.build(method), seed, data, say=say)
    classifier, tuning = tuned.classifier, tuned.tuning
    if zero_shot and not isinstance(classifier, PromptClassifier):
        raise InputError("methods", method, "zero-shot only with a language model and label words")
    result = MethodResult(method, seed, {}, [], total=sum(p.numel() for p in classifier.model.parameters()))
    if tuning is not None:
        count = tuning.count()
        result.trained, result.total = count.trained, count.total
        result.history, result.best_epoch = as_rows(tuned.history), tuned.best.epoch
        result.validation_accuracy = tuned.best.validation_accuracy
        if config.save_tunings:
            folder = Path(config.output_dir) / f"{method}-seed{seed}"
            tuning.save(folder)
            result.tuning = folder.name
    result.seconds = round(time.perf_counter() - start, 1)
    result.predictions = classifier.predict_logits(test.texts).argmax(-1).tolist()
    result.test = scores(test.labels, result.predictions, classifier.labels)
    return result


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One epoch's line, in the form of the source article."""
    return str(epoch).replace(f"Epoch {epoch.epoch}", f"Epoch {epoch.epoch}/{epochs}", 1)


def build_classifier(config: RunConfig, labels: list[str], head: bool = False) -> Classifier:
    """The classifier on the untouched base model: prompts where the model has a language head.

    A prompt's label words start calibrated, so that tuning need not first learn their prior.
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
    template, verbalizer = PromptTemplate(config.template), Verbalizer(config.label_words)
    words = Verbalizer({label: verbalizer.words[label] for label in labels})
    prompted = PromptClassifier(model, tokenizer, template, words, config.max_length).to(device)
    if config.calibrate:
        prompted.calibrate()
    return prompted


def check_labels(config: RunConfig, labels: list[str]) -> None:
    """Label words must name exactly the labels of the data, where they are used."""
    if config.classifier != "head" and set(config.label_words) != set(labels):
        given = ", ".join(config.label_words)
        raise InputError("label_words", given, f"words for exactly the labels {', '.join(labels)}")


def subset(rows: Dataset, size: int | None, seed: int) -> Dataset:
    """``size`` rows drawn by ``seed``, balanced as the labels are; all rows for None."""
    if size is None or size == len(rows):
        return rows
    if size > len(rows):
        raise InputError("train_size", size, f"at most the split's {len(rows)} rows")
    kept, _ = train_test_split(range(len(rows)), train_size=size, random_state=seed, stratify=rows["label"])
    return rows.select(sorted(kept))


def as_split(rows: Dataset) -> Split:
    return Split(list(rows["text"]), list(rows["label"]))


def baselines(
    config: RunConfig, seed: int, data: DatasetDict, labels: list[str], test: Split
) -> list[MethodResult]:
    """The first two rows of every table, trained on the texts that the methods are trained on."""
    training = as_split(subset(data["train"], config.train_size, seed))
    validation = as_split(subset(data["validation"], config.validation_size, seed))
    pairs = [(s.texts, s.labels) for s in (training, validation)]
    regression, c = tfidf_regression(*pairs)
    made = []
    for name, pipeline, note in ((MAJORITY, majority(pairs[0]), ""), (BAG_OF_WORDS, regression, f"C = {c}")):
        predictions = [int(p) for p in pipeline.predict(list(test.texts))]
        result = MethodResult(name, seed, scores(test.labels, predictions, labels), predictions, note=note)
        result.validation_accuracy = float(pipeline.score(list(validation.texts), list(validation.labels)))
        made.append(result)
    return made


def command(config: RunConfig) -> str:
    """The papermill command that repeats the run."""
    changed = {
        name: portable(value) if name in PATHS else value
        for name, value in config.model_dump().items()
        if value != type(config).model_fields[name].default
    }
    words = ["papermill", "notebooks/10_sentiment_run.ipynb", "out.ipynb"]
    if changed:
        words += ["-y", json.dumps(changed, ensure_ascii=False)]
    return shlex.join(words)
