"""Classify reviews, one JSON line each, in the order in which they came.

``python -m hybridft_utils.classify FOLDER reviews.csv`` answers with the classifier whose tuning was saved in
FOLDER (:meth:`hybridft_utils.Tuning.save`), on the model, with the labels and in the prompt it was trained
with.  It reads a text file with a review per line, a csv, tsv, jsonl or parquet file (gz too), or standard
input, and writes lines such as ``{"text": "Lovely.", "label": "positive", "probability": 0.93}``.  Without a
folder it answers zero-shot.

A setting that contradicts the saved ones is refused; a tuning that an older version saved holds none, so
they are taken from the command line.  Lines are read and written batch by batch, so memory does not grow with
their number; tables are read whole.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .classifiers import restore
from .classifiers.classifier import Classifier
from .classifiers.head_classifier import HeadClassifier
from .errors import InputError
from .experiments.config import RunConfig
from .experiments.run import build_classifier
from .files import json_line
from .models.loading import load_base
from .reviews.detokenizing import detokenized
from .reviews.reading import TEXT_COLUMNS, find_column
from .reviews.tables import ENDINGS, ending, read_table
from .tuning.load import load_tuning
from .tuning.saved_folder import read_settings


def read_texts(source: str, text_column: str | None = None, drop_empty: bool = False) -> Iterator[str]:
    """The reviews of a file, or of standard input for "-", as they are written, without the ends of lines.

    Raises :class:`InputError` for a file that is missing or cannot be read, and, when it reaches them, for
    lines that are empty or not UTF-8.
    """
    path = Path(source)
    if source != "-" and not path.is_file():
        raise InputError("file", source, "a file that exists, or - for standard input")
    if source != "-" and ending(path) in ENDINGS:
        frame = read_table(path)
        column = find_column({"train": frame}, text_column, TEXT_COLUMNS, "text_column")
        texts = (value if isinstance(value, str) else "" for value in frame[column])
        return without_empty(texts, "row", drop_empty)
    if text_column is not None:
        raise InputError("text_column", text_column, f"a column of a {', '.join(ENDINGS)} file, not of lines")
    return without_empty(lines(path.open("rb") if source != "-" else standard_input()), "line", drop_empty)


def standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("file", "-", "a file, since standard input is closed")
    return sys.stdin.buffer


def lines(stream: BinaryIO) -> Iterator[str]:
    with stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError("file", f"line {number}", "lines in UTF-8") from error


def without_empty(texts: Iterable[str], unit: str, drop_empty: bool) -> Iterator[str]:
    for number, text in enumerate(texts, start=1):
        if text.strip():
            yield text
        elif not drop_empty:
            raise InputError("file", f"empty {unit} {number}", f"no empty {unit}s, or --drop_empty")


def classify(
    classifier: Classifier, texts: Iterable[str], batch_size: int = 32, detokenize: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """For each batch of ``texts``, a list of rows with text, label and the label's probability.

    Texts are read without the white space around them, as in training, and given back as they are.
    """
    remaining = iter(texts)
    while batch := list(islice(remaining, batch_size)):
        read = [detokenized(text) if detokenize else text.strip() for text in batch]
        best = classifier.predict_logits(read, batch_size).softmax(-1).max(-1)
        rows = []
        for text, index, p in zip(batch, best.indices.tolist(), best.values.tolist(), strict=True):
            if not math.isfinite(p):
                raise InputError("model", f"{p} as a probability", "a model whose scores are finite numbers")
            rows.append({"text": text, "label": classifier.labels[index], "probability": round(p, 6)})
        yield rows


def zero_shot(config: RunConfig) -> Classifier:
    """The prompt classifier that ``config`` describes, untrained."""
    classifier = build_classifier(config, list(config.label_words))
    if isinstance(classifier, HeadClassifier):
        raise InputError("tuning", None, "a folder, since the head of this model is not trained yet")
    return classifier


def tuned_classifier(folder: str, given: dict[str, Any]) -> Classifier:
    """The classifier whose tuning is in ``folder``; ``given`` holds the fields of :class:`RunConfig` named.

    Raises :class:`InputError` where they contradict the saved ones.
    """
    config, saved = RunConfig(**given), read_settings(folder)
    described = saved.get("classifier")
    if described is None:
        classifier = build_classifier(config, list(config.label_words), head=trains_head(saved))
    else:
        check_agreement(config, given, described)
        name = given.get("model") or saved["loaded_from"]
        if name is None:
            raise InputError("model", None, "a name or a folder, since the saved tuning names none")
        model, tokenizer = load_base(name)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        classifier = restore(model.to(device), tokenizer, described)  # type: ignore[arg-type]
    load_tuning(classifier, folder)
    return classifier.eval()


def check_agreement(config: RunConfig, given: dict[str, Any], described: dict[str, Any]) -> None:
    """Refuse a named setting that is not the saved one; those of another kind of classifier are ignored."""
    named = {name: getattr(config, name) for name in given}
    if "label_words" in named:
        named["labels"] = list(config.label_words)
    saved = {**described, **({"calibrate": any(described["prior"])} if "prior" in described else {})}
    for name in ("labels", "label_words", "template", "calibrate", "pooling", "max_length"):
        if name in named and named[name] != saved.get(name, named[name]):
            raise InputError(name, named[name], f"{saved[name]}, as the tuning was trained")


def trains_head(settings: dict[str, Any]) -> bool:
    """Whether a tuning of format 1 brings a head; what is damaged is left to :func:`load_tuning`."""
    try:
        kinds = [method["kind"] for method in settings["methods"]]
        return "head" in kinds or "head" in settings["also_train"]
    except (KeyError, TypeError):
        return False


def options() -> dict[str, Any]:
    """What the command line says, and nothing else; names are those of :class:`RunConfig`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "places",
        nargs="*",
        default=[],
        metavar="FOLDER FILE",
        help="folder of a saved tuning, then a file;\n- or no file: standard input; no folder: zero-shot",
    )
    parser.add_argument("--tuning", metavar="FOLDER", help="the same as FOLDER in front of FILE")
    parser.add_argument("--model", help="builtin:movies, a Hub id or a folder; by default the saved tuning's")
    parser.add_argument("--template")
    parser.add_argument(
        "--label_words", help='JSON such as {"negative": ["terrible"], "positive": ["great"]}'
    )
    parser.add_argument("--calibrate", action=argparse.BooleanOptionalAction)
    parser.add_argument("--pooling")
    parser.add_argument("--max_length", type=int)
    parser.add_argument("--detokenize", action="store_true")
    parser.add_argument("--text_column")
    parser.add_argument("--drop_empty", action="store_true", help="skip empty lines")
    parser.add_argument("--batch_size", type=int, default=32, help="1 answers each line at once")
    return vars(parser.parse_args())


def folder_and_file(places: list[str], tuning: str | None) -> tuple[str | None, str]:
    """The saved tuning, if one is named, and the file to read."""
    if tuning is None and (len(places) > 1 or (places and Path(places[0]).is_dir())):
        tuning, *places = places
    if len(places) > 1:
        raise InputError("file", places[1], "one file")
    return tuning, places[0] if places else "-"


def run_command() -> None:
    given = options()
    folder, file = folder_and_file(given.pop("places"), given.pop("tuning", None))
    if "label_words" in given:
        try:
            given["label_words"] = json.loads(given["label_words"])
        except (ValueError, RecursionError) as error:
            accepted = 'JSON such as {"negative": ["terrible"], "positive": ["great"]}'
            raise InputError("label_words", given["label_words"], accepted) from error
    config = RunConfig(**given)
    texts = read_texts(file, config.text_column, config.drop_empty)
    classifier = zero_shot(config) if folder is None else tuned_classifier(folder, given)
    for batch in classify(classifier, texts, config.batch_size, config.detokenize):
        sys.stdout.write("".join(f"{json_line(row)}\n" for row in batch))
        sys.stdout.flush()


def main() -> None:
    if sys.stdout is None:
        raise SystemExit(str(InputError("standard output", "closed", "a place that can be written to")))
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        run_command()
    except InputError as error:
        raise SystemExit(str(error)) from error
    except OSError as error:  # a full disk, or a reader that has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(1) from error
        reason = InputError("standard output", error.strerror, "a place that can be written to")
        raise SystemExit(str(reason)) from error


if __name__ == "__main__":
    main()
