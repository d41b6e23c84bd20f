"""A sentiment run: several methods, several seeds, one table; notebook 10 calls it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import DatasetDict

from ..classifiers.bag_of_words import majority, tfidf_regression
from ..evidence.provenance import base_fingerprint, fingerprint, portable, provenance
from ..evidence.statistics import scores
from ..files import check_writable, exclusive
from ..models.loading import load_base
from .config import RunConfig
from .fine_tune import build_classifier, check_labels, fine_tune, label_names, rehearse
from .results import MethodResult, RunResult
from .run_folder import RunFolder, run_key
from .splits import Split, as_split, subset
from .training import as_rows

__all__ = [
    "BAG_OF_WORDS",
    "MAJORITY",
    "as_split",
    "build_classifier",
    "check_labels",
    "fine_tune",
    "run",
    "subset",
]

#: Settings that may hold folders of one machine.
PATHS = ("model", "dataset", "output_dir")
MAJORITY, BAG_OF_WORDS = "majority class", "TF-IDF + logistic regression"


def run(config: RunConfig, report: Callable[[str], None] | None = print) -> RunResult:
    """Train and test every method of ``config`` with every seed.

    The test split is read once for each finished model.  Results are written to ``output_dir/results.json``
    once all are there; tunings lie in the folders that the results name, relative to ``output_dir``.
    ``report`` gets lines of progress.  Under ``accelerate launch`` the main process alone writes and reports.

    Raises :class:`InputError` before anything is trained for settings that cannot work, for a place that
    cannot be written to, and for an ``output_dir`` that another run is using.
    """
    main = PartialState().is_main_process
    data = config.load_data()
    rehearse(config, data)
    key = run_key(config, data, base_fingerprint(*load_base(config.model)))
    with exclusive(config.output_dir, "output_dir") if main else nullcontext():
        if main:
            check_writable(config.output_dir, "output_dir")
        shared = [RunFolder(config, key) if main else None]
        broadcast_object_list(shared)  # so that all processes agree on what is left to do
        folder: RunFolder = shared[0]  # type: ignore[assignment]
        return folder.whole() or measure_all(
            config, data, folder, report if report and main else lambda line: None
        )


def measure_all(
    config: RunConfig, data: DatasetDict, folder: RunFolder, say: Callable[[str], None]
) -> RunResult:
    """Baselines, then every method and seed that ``folder`` does not have yet, then the results."""
    main, test = PartialState().is_main_process, as_split(data["test"])
    results = []
    for seed in config.seeds if config.train_size else config.seeds[:1]:
        results += baselines(config, seed, data, test)
    for line in results:
        say(f"{line.method}: accuracy {100 * line.test['accuracy']:.1f}% on test")
    for method in config.methods:
        for seed in config.seeds[:1] if method == "zero-shot" else config.seeds:
            say(f"\n{method}, seed {seed}")
            result = folder.get(method, seed)
            if result is None:
                result = run_method(config, method, seed, data, test, folder, say)
                if main:
                    folder.keep(result)
            say(f"{method}, seed {seed}: accuracy {100 * result.test['accuracy']:.1f}% on test")
            results.append(result)
    made = {"data": fingerprint(data), "key": folder.key, "command": command(config)}
    whole = RunResult(
        config={n: portable(v) if n in PATHS else v for n, v in config.model_dump().items()},
        labels=label_names(data),
        test_labels=list(test.labels),
        results=results,
        provenance={**provenance(), **made},
    )
    if main:
        whole.save(Path(config.output_dir) / "results.json")
    return whole


def run_method(
    config: RunConfig,
    method: str,
    seed: int,
    data: DatasetDict,
    test: Split,
    folder: RunFolder,
    say: Callable[[str], None],
) -> MethodResult:
    """One method with one seed, from the untouched base model."""
    start = time.perf_counter()
    methods = () if method == "zero-shot" else config.build(method)
    tuned = fine_tune(config, methods, seed, data, say=say)
    classifier, tuning = tuned.classifier, tuned.tuning
    result = MethodResult(method, seed, {}, [], total=sum(p.numel() for p in classifier.model.parameters()))
    if tuning is not None:
        count = tuning.count()
        result.trained, result.total = count.trained, count.total
        result.history, result.best_epoch = as_rows(tuned.history), tuned.best.epoch
        result.validation_accuracy = tuned.best.validation_accuracy
        if config.save_tunings:
            result.tuning = f"{folder.name}/{method}-seed{seed}"
            if PartialState().is_main_process:
                tuning.save(folder.output / result.tuning)
    result.seconds = round(time.perf_counter() - start, 1)
    result.predictions = classifier.predict_logits(test.texts).argmax(-1).tolist()
    result.test = scores(test.labels, result.predictions, classifier.labels)
    return result


def baselines(config: RunConfig, seed: int, data: DatasetDict, test: Split) -> list[MethodResult]:
    """The first two rows of every table, trained on the texts that the methods are trained on."""
    training = as_split(subset(data["train"], config.train_size, seed))
    validation = as_split(subset(data["validation"], config.validation_size, seed, "validation_size"))
    pairs = [(s.texts, s.labels) for s in (training, validation)]
    regression, c = tfidf_regression(*pairs)
    made = []
    for name, pipeline, note in ((MAJORITY, majority(pairs[0]), ""), (BAG_OF_WORDS, regression, f"C = {c}")):
        predictions = [int(p) for p in pipeline.predict(list(test.texts))]
        found = scores(test.labels, predictions, label_names(data))
        result = MethodResult(name, seed, found, predictions, note=note)
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
