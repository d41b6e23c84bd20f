"""Classify reviews, one JSON line each, in the order in which they came.

``python -m hybridft_utils.classify --tuning FOLDER reviews.txt`` reads a text file with a review a line, a
csv, tsv, jsonl or parquet file (gz too), or standard input, and writes lines such as
``{"text": "Lovely.", "label": "positive", "probability": 0.93}``.  Without ``--tuning`` it answers zero-shot.

FOLDER is the tuning of a classifier, as :func:`hybridft_utils.run` saves it.  It holds the trained tensors and
not the prompt: give the template, the label words and the other settings that it was trained with, where they
are not the defaults.  Lines are read and written batch by batch, so memory does not grow with their number;
tables are read whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from .classifiers.classifier import Classifier
from .classifiers.head_classifier import HeadClassifier
from .errors import InputError
from .experiments.config import RunConfig
from .experiments.run import build_classifier
from .reviews.detokenizing import detokenized
from .reviews.reading import TEXT_COLUMNS, find_column
from .reviews.tables import ENDINGS, ending, read_table
from .tuning.saved_folder import SETTINGS, load_tuning, read_settings


def read_texts(source: str, text_column: str | None = None, drop_empty: bool = False) -> Iterator[str]:
    """The reviews of a file, or of standard input for "-", without white space around them.

    Raises :class:`InputError` for a file that is missing or cannot be read, and, where they are reached, for
    lines that are empty or not UTF-8.
    """
    path = Path(source)
    if source != "-" and not path.is_file():
        raise InputError("file", source, "a file that exists, or - for standard input")
    if source != "-" and ending(path) in ENDINGS:
        frame = read_table(path)
        column = find_column({"train": frame}, text_column, TEXT_COLUMNS, "text_column")
        return without_empty(frame[column].fillna("").astype(str), "row", drop_empty)
    if text_column is not None:
        raise InputError("text_column", text_column, f"a column of a {', '.join(ENDINGS)} file, not of lines")
    return without_empty(lines(sys.stdin.buffer if source == "-" else path.open("rb")), "line", drop_empty)


def lines(stream: BinaryIO) -> Iterator[str]:
    with stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError("file", f"line {number}", "lines in UTF-8") from error


def without_empty(texts: Iterable[str], unit: str, drop_empty: bool) -> Iterator[str]:
    for number, text in enumerate(map(str.strip, texts), start=1):
        if text:
            yield text
        elif not drop_empty:
            raise InputError("file", f"empty {unit} {number}", f"no empty {unit}s, or --drop_empty")


def classify(
    classifier: Classifier, texts: Iterable[str], batch_size: int = 32, detokenize: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """For each batch of ``texts`` a list of text, label and the label's probability."""
    remaining = iter(texts)
    while batch := list(islice(remaining, batch_size)):
        read = [detokenized(text) for text in batch] if detokenize else batch
        best = classifier.predict_logits(read, batch_size).softmax(-1).max(-1)
        yield [
            {"text": text, "label": classifier.labels[index], "probability": round(p, 6)}
            for text, index, p in zip(batch, best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def tuned_classifier(config: RunConfig, folder: str | None) -> Classifier:
    """The classifier that ``config`` describes with the tuning in ``folder``, without one for None."""
    labels = list(config.label_words)
    if folder is None:
        classifier = build_classifier(config, labels)
        if isinstance(classifier, HeadClassifier):
            raise InputError("tuning", None, "a folder, since the head of this model is not trained yet")
        return classifier
    classifier = build_classifier(config, labels, head=trains_head(read_settings(folder, SETTINGS)))
    load_tuning(classifier, folder)
    return classifier.eval()


def trains_head(settings: dict[str, Any]) -> bool:
    """Whether a saved tuning brings a head of its own; what is damaged is left to :func:`load_tuning`."""
    try:
        kinds = [method["kind"] for method in settings["methods"]]
        return "head" in kinds or "head" in settings["also_train"]
    except (KeyError, TypeError):
        return False


def options() -> dict[str, Any]:
    """What the command line says; names and defaults are those of :class:`RunConfig`."""
    default = {name: field.default for name, field in RunConfig.model_fields.items()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", nargs="?", default="-", help="- or nothing: standard input")
    parser.add_argument("--model", default=default["model"], help="builtin:movies, a Hub id or a folder")
    parser.add_argument(
        "--tuning", help="folder with tuning.json and tuning.safetensors; without one: zero-shot"
    )
    parser.add_argument("--template", default=default["template"])
    parser.add_argument(
        "--label_words",
        default=json.dumps(default["label_words"]),
        help="JSON; for a model with a new head the names alone count, in the order of training",
    )
    parser.add_argument("--calibrate", action=argparse.BooleanOptionalAction, default=default["calibrate"])
    parser.add_argument("--pooling", default=default["pooling"])
    parser.add_argument("--max_length", type=int)
    parser.add_argument("--detokenize", action="store_true")
    parser.add_argument("--text_column")
    parser.add_argument("--drop_empty", action="store_true", help="skip empty lines")
    parser.add_argument("--batch_size", type=int, default=32, help="1 answers each line at once")
    return vars(parser.parse_args())


def run_command() -> None:
    given = options()
    file, tuning = given.pop("file"), given.pop("tuning")
    try:
        given["label_words"] = json.loads(given["label_words"])
    except ValueError as error:
        accepted = 'JSON such as {"negative": ["terrible"], "positive": ["great"]}'
        raise InputError("label_words", given["label_words"], accepted) from error
    config = RunConfig(**given)
    texts = read_texts(file, config.text_column, config.drop_empty)
    classifier = tuned_classifier(config, tuning)
    for batch in classify(classifier, texts, config.batch_size, config.detokenize):
        for row in batch:
            print(json.dumps(row, ensure_ascii=False))
        sys.stdout.flush()


def main() -> None:
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        run_command()
    except InputError as error:
        raise SystemExit(str(error)) from error
    except BrokenPipeError as error:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
