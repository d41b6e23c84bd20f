"""The command line that classifies a file or a stream."""

import io
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from old_folders import as_format_1
from tiny_models import jitter

from hybridft_utils import (
    InputError,
    LoRA,
    Prefix,
    RunConfig,
    attach,
    classify,
    load_tuning,
)
from hybridft_utils.classifiers import restore
from hybridft_utils.experiments.run import build_classifier
from hybridft_utils.files import json_line

TEXTS = [
    "I loved it.",
    "No.",
    "A long and rather dull evening, to be honest.",
    "naïve 😀 café",
    "Fine, I suppose.",
]
LABELS = ["negative", "positive"]


@pytest.fixture
def tuned(model_folder, tmp_path):
    """A saved hybrid, and what its classifier says about the texts."""
    torch.manual_seed(3)
    classifier = build_classifier(RunConfig(model=str(model_folder)), LABELS)
    tuning = attach(classifier, LoRA(rank=2), Prefix(3))
    with torch.no_grad():
        for parameter in tuning.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tuning.save(tmp_path / "tuning")
    return tmp_path / "tuning", classifier.predict_logits(TEXTS).softmax(-1)


@pytest.fixture
def command(model_folder, monkeypatch, capsys):
    """Runs the command and gives back the JSON lines."""

    def call(*words, stdin=b"", model=model_folder):
        given = ["classify", *([] if model is None else ["--model", str(model)]), *map(str, words)]
        monkeypatch.setattr(sys, "argv", given)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
        classify.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def check(rows, p):
    assert [row["text"] for row in rows] == TEXTS
    assert [row["label"] for row in rows] == [LABELS[i] for i in p.argmax(-1).tolist()]
    assert [row["probability"] for row in rows] == pytest.approx(p.max(-1).values.tolist(), abs=2e-5)
    assert all(list(row) == ["text", "label", "probability"] for row in rows)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_lines_of_a_file_and_of_standard_input(command, tuned, tmp_path, batch_size):
    folder, p = tuned
    lines = "\r\n".join(TEXTS).encode()
    (tmp_path / "reviews.txt").write_bytes(b"\xef\xbb\xbf" + lines)  # as Windows writes it
    options = ["--tuning", folder, "--batch_size", batch_size]
    check(command(*options, tmp_path / "reviews.txt"), p)
    check(command(*options, stdin=lines), p)
    check(command(*options, "-", stdin=lines + b"\n"), p)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "parquet"])
def test_tables_by_their_column(command, tuned, tmp_path, kind):
    folder, p = tuned
    file = tmp_path / f"reviews.{kind}"
    for column, options in (("sentence", []), ("what", ["--text_column", "what"])):
        frame = pd.DataFrame({"number": range(len(TEXTS)), column: TEXTS})
        if kind == "parquet":
            frame.to_parquet(file)
        elif kind == "jsonl":
            frame.to_json(file, orient="records", lines=True)
        else:
            frame.to_csv(file, sep="\t" if kind == "tsv" else ",", index=False)
        check(command("--tuning", folder, *options, file), p)


def test_a_new_head_is_loaded_with_its_tuning(command, model_folder, tmp_path):
    torch.manual_seed(3)
    classifier = build_classifier(RunConfig(model=str(model_folder)), LABELS, head=True)
    tuning = attach(classifier, LoRA(rank=2), also_train=("head",))
    with torch.no_grad():
        classifier.head.weight.mul_(30)
    tuning.save(tmp_path / "tuning")
    p = classifier.predict_logits(TEXTS).softmax(-1)
    check(command("--tuning", tmp_path / "tuning", stdin="\n".join(TEXTS).encode()), p)


def test_without_a_tuning_the_prompt_answers(command, model_folder):
    words = {"bad": ["awful", "dull"], "good": ["fine"]}
    settings = {"template": "Review: {text} Verdict: {label}", "label_words": words, "calibrate": False}
    classifier = build_classifier(RunConfig(model=str(model_folder), **settings), list(words))
    options = ["--template", settings["template"], "--label_words", json.dumps(words), "--no-calibrate"]
    rows = command(*options, stdin="\n".join(TEXTS).encode())
    assert [row["label"] for row in rows] == classifier.predict(TEXTS)


def test_detokenized_texts_are_read_and_the_given_ones_written(command, model_folder):
    classifier = build_classifier(RunConfig(model=str(model_folder)), LABELS)
    (row,) = command("--detokenize", stdin=b"it 's n't bad .")
    assert row["text"] == "it 's n't bad ."
    expected = classifier.predict_logits(["it'sn't bad."]).softmax(-1).max().item()
    assert row["probability"] == pytest.approx(expected, abs=2e-5)


def test_reads_no_further_than_the_batch(model_folder):
    classifier, read = build_classifier(RunConfig(model=str(model_folder)), LABELS), []

    def endless():
        while True:
            read.append(1)
            yield "Fine."

    batches = classify.classify(classifier, endless(), batch_size=3)
    for done in (3, 6):
        assert len(next(batches)) == 3 and len(read) == done


def test_empty_lines_are_refused_or_dropped(command, capsys):
    lines = b"One.\n\n  \nTwo.\n"
    with pytest.raises(SystemExit, match="empty line 2"):
        command(stdin=lines)
    assert [row["text"] for row in command("--drop_empty", stdin=lines)] == ["One.", "Two."]
    assert command(stdin=b"") == []


def test_what_came_before_a_bad_line_is_answered(command, capsys):
    with pytest.raises(SystemExit, match=r"line 3.*UTF-8"):
        command("--batch_size", 2, stdin=b"One.\nTwo.\n\xff\xfe\n")
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.txt"], "a file that exists"),
        (["--label_words", "great"], "label_words: got 'great'"),
        (["--label_words", '{"one": ["word"]}'], "at least two labels"),
        (["--template", "no slots"], "template: got 'no slots'"),
        (["--batch_size", "0"], "batch_size: got 0"),
        (["--text_column", "text"], "text_column"),
        (["--tuning", "nowhere"], "a folder with tuning.json"),
    ],
)
def test_bad_input_is_one_sentence_and_no_success(command, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        command(*words, stdin=b"One.")
    assert message in str(error.value.code) and "\n" not in str(error.value.code)


@pytest.mark.parametrize("damage", [{"methods": None}, {"methods": [3]}, {"also_train": None}])
@pytest.mark.parametrize("old", [False, True])
def test_a_damaged_tuning_is_one_sentence(command, tuned, damage, old):
    folder, _ = tuned
    if old:
        as_format_1(folder)
    file = folder / "tuning.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    message = r"folder: got .* as Tuning.save writes it" if old else "as it was saved"
    with pytest.raises(SystemExit, match=message):
        command("--tuning", folder, stdin=b"One.")


def test_a_table_without_the_column_and_an_encoder_without_a_tuning(command, tmp_path, encoder, tokenizer):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match="one of the columns a, b"):
        command(tmp_path / "a.csv")
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    with pytest.raises(InputError, match="head of this model is not trained"):
        classify.zero_shot(RunConfig(model=str(tmp_path / "encoder")))


def test_a_saved_hybrid_classifies_by_itself(command, model_folder, tmp_path, monkeypatch):
    """Model, labels, template, label words and calibration all come from the folder, from anywhere."""
    words = {"good": ["fine"], "bad": ["awful", "dull"]}
    settings = {"template": "Review: {text} Verdict: {label}", "label_words": words, "max_length": 40}
    monkeypatch.chdir(model_folder.parent)
    torch.manual_seed(3)
    classifier = build_classifier(RunConfig(model=model_folder.name, **settings), list(words))
    tuning = attach(classifier, LoRA(rank=2), Prefix(3))
    jitter(tuning, 0.3)
    tuning.save(tmp_path / "tuning")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pd.DataFrame({"text": TEXTS}).to_csv("reviews.csv", index=False)
    p = classifier.predict_logits(TEXTS).softmax(-1)
    for words_given in (["../tuning", "reviews.csv"], ["--tuning", "../tuning", "reviews.csv"]):
        rows = command(*words_given, model=None)
        assert [row["label"] for row in rows] == classifier.predict(TEXTS)
        assert [row["probability"] for row in rows] == pytest.approx(p.max(-1).values.tolist(), abs=2e-6)
    assert [row["label"] for row in command("../tuning", stdin=b"No.", model=None)] == classifier.predict(
        ["No."]
    )
    for name, other in (
        ("labels", {"bad": ["awful", "dull"], "good": ["fine"]}),
        ("label_words", {"good": ["nice"], "bad": ["awful", "dull"]}),
    ):
        with pytest.raises(SystemExit, match=f"^{name}: got .* as the tuning was trained"):
            command("../tuning", "reviews.csv", "--label_words", json.dumps(other), model=None)
    for option in (["--template", "{text} {label}"], ["--no-calibrate"], ["--max_length", 41]):
        with pytest.raises(SystemExit, match="as the tuning was trained"):
            command("../tuning", "reviews.csv", *option, model=None)
    same = ["--template", settings["template"], "--label_words", json.dumps(words), "--max_length", 40]
    assert command("../tuning", "reviews.csv", *same, "--calibrate", model=None) == rows


def test_a_saved_head_keeps_its_label_order(command, model_folder, tmp_path):
    torch.manual_seed(3)
    config = RunConfig(model=str(model_folder), pooling="last")
    classifier = build_classifier(config, ["positive", "negative"], head=True)
    tuning = attach(classifier, LoRA(rank=2), also_train=("head",))
    with torch.no_grad():
        classifier.head.weight.mul_(30)
    tuning.save(tmp_path / "tuning")
    rows = command(tmp_path / "tuning", stdin="\n".join(TEXTS).encode(), model=None)
    assert [row["label"] for row in rows] == classifier.predict(TEXTS)
    with pytest.raises(SystemExit, match="labels: got"):
        command(tmp_path / "tuning", "--label_words", '{"negative": ["a"], "positive": ["b"]}', model=None)
    with pytest.raises(SystemExit, match="pooling: got 'mean'"):
        command(tmp_path / "tuning", "--pooling", "mean", model=None)
    for other in (LABELS, ["no", "yes"]):
        flipped = build_classifier(config, other, head=True)
        with pytest.raises(InputError, match="labels: got"):
            load_tuning(flipped, tmp_path / "tuning")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"template": "{text} So {label}."}, "template"),
        ({"label_words": {"negative": ["bad"], "positive": ["great"]}}, "label_words"),
        ({"label_words": {"positive": ["great"], "negative": ["terrible"]}}, "labels"),
        ({"calibrate": False}, "prior"),
        ({"max_length": 30}, "max_length"),
    ],
)
def test_another_classifier_is_refused_by_its_difference(model_folder, tuned, change, name):
    folder, _ = tuned
    config = RunConfig(model=str(model_folder), **change)
    classifier = build_classifier(config, list(config.label_words))
    with pytest.raises(InputError, match=f"^{name}: got .* as in the saved tuning"):
        load_tuning(classifier, folder)


@pytest.mark.parametrize("old", [False, True])
def test_old_folders_take_their_settings_from_the_command_line(command, tuned, old, model_folder):
    folder, p = tuned
    if old:
        as_format_1(folder, build_classifier(RunConfig(model=str(model_folder)), LABELS))
    words = '{"negative": ["terrible"], "positive": ["great"]}'
    check(command(folder, "--label_words", words, stdin="\n".join(TEXTS).encode()), p)


def test_a_model_without_a_name_has_to_be_named(command, llama, tokenizer, tmp_path):
    classifier = restore(llama, tokenizer, {
        "kind": "prompt", "labels": LABELS, "max_length": 40, "template": "{text} It was {label}.",
        "label_words": {"negative": ["terrible"], "positive": ["great"]}, "prior": [0.0, 0.0],
    })  # fmt: skip
    attach(classifier, LoRA(rank=2)).save(tmp_path / "tuning")
    with pytest.raises(SystemExit, match="the saved tuning names none"):
        command(tmp_path / "tuning", stdin=b"One.", model=None)


HARD = [
    "a\u2028b",
    "a\u2029b",
    "a\x85b",
    "tab\tbell\x07",
    "\x7f\x9f",
    "  spaces  ",
    "007",
    "1.10",
    "TRUE",
    "NA",
]


def test_rows_come_back_as_they_are_written_one_line_each(command, model_folder, tmp_path, capsys):
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n" + "".join(f'"{text}",1\n' for text in HARD), newline="")
    rows = command(file)
    assert [row["text"] for row in rows] == HARD
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(HARD), newline="")
    assert [row["text"] for row in command(file)] == HARD


@given(text=st.text(min_size=1))
@examples(max_examples=200, deadline=None)
def test_any_text_is_one_line_that_utf8_holds(text):
    line = json_line({"text": text})
    assert len(line.splitlines()) == 1 and json.loads(line.encode()) == {"text": text}


def test_a_probability_that_is_no_number_is_never_written(model_folder):
    classifier = build_classifier(RunConfig(model=str(model_folder)), LABELS)
    next(classifier.parameters()).data.fill_(float("nan"))
    with pytest.raises(InputError):
        list(classify.classify(classifier, ["One."]))


def test_a_full_disk_and_closed_streams_are_one_sentence(model_folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["classify", "--model", str(model_folder)])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit, match=r"^file: got '-'; accepted: a file, since standard input is closed"):
        classify.main()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Fine.")))
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match=r"^standard output: got 'No space left on device'"):
            classify.main()
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit, match=r"^standard output: got 'closed'"):
        classify.main()


def test_as_a_program_it_streams_and_stops_with_its_reader(model_folder, root, tuned):
    folder, p = tuned
    words = [sys.executable, "-W", "error::RuntimeWarning", "-m", "hybridft_utils.classify"]
    words += ["--model", str(model_folder), "--tuning", str(folder), "--batch_size", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        words, cwd=root, env={**os.environ, "PYTHONIOENCODING": "ascii"}, **pipes
    ) as program:
        rows = []
        for text in TEXTS:  # each is answered before the next is asked
            program.stdin.write(f"{text}\n".encode())
            program.stdin.flush()
            rows.append(json.loads(program.stdout.readline()))
        check(rows, p)
        program.stdout.close()  # as `head` does
        program.stdin.write(b"One more.\n" * 3)
        program.stdin.close()
        assert program.wait(60) == 1
        assert program.stderr.read() == b""
