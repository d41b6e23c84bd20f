"""load_reviews: what it reads, and how it refuses what it cannot."""

import gzip
import json
import re

import pandas as pd
import pytest

from hybridft_utils import InputError, load_reviews
from hybridft_utils.reviews.detokenizing import detokenized

ROWS = [(f"review number {i} is {'good' if i % 2 else 'bad'}", i % 2) for i in range(40)]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])


def write(folder, name, frame=FRAME):
    path = folder / name
    if ".tsv" in name:
        frame.to_csv(path, sep="\t", index=False)
    elif ".csv" in name:
        frame.to_csv(path, index=False)
    elif ".jsonl" in name:
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize(
    "name", ["r.csv", "r.tsv", "r.jsonl", "r.parquet", "r.csv.gz", "r.tsv.gz", "r.jsonl.gz"]
)
def test_reads_every_kind_of_file_and_cuts_missing_splits(tmp_path, name):
    data = load_reviews(write(tmp_path, name))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 32, "validation": 4, "test": 4}
    texts = [t for rows in data.values() for t in rows["text"]]
    assert sorted(texts) == sorted(FRAME["text"])
    assert data["test"]["label"].count(1) == 2
    assert data["train"].features["label"].names == ["negative", "positive"]


def test_folder_takes_the_splits_from_the_file_names(tmp_path):
    for name in ("train.csv", "dev.csv", "test.csv"):
        write(tmp_path, name)
    data = load_reviews(tmp_path)
    assert [len(data[s]) for s in ("train", "validation", "test")] == [40, 40, 40]


def test_labels_by_name_and_other_columns(tmp_path):
    frame = pd.DataFrame({"review": FRAME["text"], "sentiment": ["good", "bad"] * 20})
    data = load_reviews(write(tmp_path, "r.csv", frame))
    assert data["train"].features["label"].names == ["bad", "good"]
    renamed = frame.rename(columns={"review": "body", "sentiment": "mark"})
    path = write(tmp_path, "s.csv", renamed)
    data = load_reviews(path, text_column="body", label_column="mark", label_names=["good", "bad"])
    assert data["train"].features["label"].names == ["good", "bad"]


def test_same_seed_same_split(tmp_path):
    path = write(tmp_path, "r.csv")
    first, second, other = (load_reviews(path, seed=s)["test"]["text"] for s in (0, 0, 1))
    assert list(first) == list(second) != list(other)


def test_detokenized():
    assert detokenized("it 's not bad , -lrb- really -rrb- .") == "it's not bad, (really)."
    assert detokenized("they do n't care , but i 'd go !") == "they don't care, but i'd go!"


def test_drop_empty(tmp_path):
    frame = FRAME.copy()
    frame.loc[3, "text"] = "  "
    path = write(tmp_path, "r.csv", frame)
    with pytest.raises(InputError, match="no text in row 4 of the train split"):
        load_reviews(path)
    data = load_reviews(path, drop_empty=True)
    assert sorted(t for rows in data.values() for t in rows["text"]) == sorted(FRAME["text"].drop(3))


@pytest.mark.parametrize("index", [[0] * 40, [f"row {i}" for i in range(40)], range(39, -1, -1)])
def test_drop_empty_drops_the_right_rows_of_a_parquet_file_with_any_index(tmp_path, index):
    frame = FRAME.astype({"label": object})
    frame.loc[3, "text"], frame.loc[5, "label"] = " ", None
    frame.set_axis(index).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(InputError, match="no text in row 4 "):
        load_reviews(tmp_path / "r.parquet")
    data = load_reviews(tmp_path / "r.parquet", drop_empty=True)
    assert sorted(t for rows in data.values() for t in rows["text"]) == sorted(FRAME["text"].drop([3, 5]))


def test_rows_keep_their_numbers_when_others_are_dropped(tmp_path):
    frame = FRAME.astype({"label": object})
    frame.loc[3, "text"], frame.loc[8, "label"] = "", "7"
    write(tmp_path, "train.csv")
    write(tmp_path, "test.csv", frame)
    refused("label: got '7 in row 9 of the test split'", tmp_path, drop_empty=True)


def test_a_label_that_only_rows_without_text_have_is_no_label(tmp_path):
    frame = FRAME.astype({"label": object})
    frame.loc[3, "text"], frame.loc[3, "label"] = "", "7"
    data = load_reviews(write(tmp_path, "r.csv", frame), drop_empty=True)
    assert data["train"].features["label"].names == ["negative", "positive"]


def refused(message, source, **options):
    """The call ends with one sentence that matches ``message``."""
    with pytest.raises(InputError, match=message) as caught:
        load_reviews(source, **options)
    sentence = str(caught.value)
    assert "; accepted: " in sentence and sentence.endswith(".") and "\n" not in sentence


def test_bad_files(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    refused("not empty", tmp_path / "empty.csv")
    (tmp_path / "header.csv").write_text("text,label\n")
    refused("not empty", tmp_path / "header.csv")
    (tmp_path / "latin.csv").write_bytes("text,label\ncaf\xe9,1\n".encode("latin-1"))
    refused("UTF-8", tmp_path / "latin.csv")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9", "label": 1}\n')
    refused("UTF-8", tmp_path / "latin.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"\n')
    refused("readable jsonl", tmp_path / "broken.jsonl")
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"text,label\na,1\n")[:-9])
    refused("readable csv", tmp_path / "broken.csv.gz")
    (tmp_path / "notes.txt").write_text("hello")
    refused("csv, tsv, json, jsonl, parquet", tmp_path / "notes.txt")
    refused("train", tmp_path)


def test_bad_columns_and_labels(tmp_path):
    path = write(tmp_path, "r.csv")
    refused("text_column: got 'body'.*text, label", path, text_column="body")
    nameless = write(tmp_path, "n.csv", FRAME.rename(columns={"label": "stars"}))
    refused("label_column: got 'no column named label or sentiment'", nameless)
    refused("two different labels", write(tmp_path, "one.csv", FRAME.assign(label="good")))
    refused("enough rows", write(tmp_path, "two.csv", FRAME.head(2)))
    refused("^seed: got -1", path, seed=-1)


def test_ten_rows_are_enough(tmp_path):
    data = load_reviews(write(tmp_path, "r.csv", FRAME.head(10)))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 6, "validation": 2, "test": 2}
    assert set(data["test"]["label"]) == set(data["validation"]["label"]) == {0, 1}


def test_unknown_sources():
    refused("builtin:reviews-en", "builtin:nonsense")
    refused("file or folder that exists", "no/such/folder/at/all")
    refused("file or folder that exists", "nobody/no-such-data-set")


def test_built_in_reviews_have_their_tags():
    data = load_reviews("builtin:reviews-en")
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 600,
        "validation": 200,
        "test": 700,
    }
    assert set(data["test"].column_names) == {"text", "label", "domain", "phenomenon"}


def test_jsonl_keeps_text_that_looks_like_numbers(tmp_path):
    rows = [{"text": "007" if i else "10", "label": i % 2} for i in range(40)]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    texts = load_reviews(path)["train"]["text"]
    assert all(re.fullmatch("007|10", text) for text in texts)
