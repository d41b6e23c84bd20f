"""Folders, shards and data set names: nothing is read twice, nothing is left out without a word."""

import json

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from hybridft_utils import InputError, load_reviews

FRAME = pd.DataFrame({"text": [f"text {i}" for i in range(40)], "label": [0, 1] * 20})


def write(path, frame=FRAME):
    path.parent.mkdir(exist_ok=True)
    if ".parquet" in path.name:
        frame.to_parquet(path)
    elif ".json" in path.name:
        frame.to_json(path, orient="records", lines=path.name.endswith("l"))
    else:
        frame.to_csv(path, index=False)


def texts(data, split="train"):
    return list(data[split]["text"])


def refused(message, source, **options):
    with pytest.raises(InputError, match=message) as caught:
        load_reviews(source, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parent", ["", "data"])
@pytest.mark.parametrize("suffix", ["", "-0a1b2c3d"])
def test_all_shards_of_a_split_are_read_in_order(tmp_path, parent, suffix):
    for i in range(12):
        rows = FRAME[3 * i : 3 * i + 3]
        write(tmp_path / parent / f"train-{i:05}-of-00012{suffix}.parquet", rows)
    write(tmp_path / parent / "test-00000-of-00001.parquet", FRAME[36:])
    write(tmp_path / parent / "validation-00000-of-00001.parquet", FRAME[38:])
    (tmp_path / "README.md").write_text("a card")
    data = load_reviews(tmp_path)
    assert texts(data) == list(FRAME["text"][:36])
    assert texts(data, "test") == list(FRAME["text"][36:])


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "train.jsonl"),
        ("train.csv", "train.csv.gz"),
        ("train.csv", "data/train.csv"),
        ("train.csv", "dev.csv", "validation.csv"),
        ("train.csv", "training.csv"),
        ("train-00000-of-00003.parquet", "train-00002-of-00003.parquet"),
        ("train-00000-of-00002.parquet", "train-00000-of-00002.csv"),
        ("train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        ("train-00000-of-00001.parquet", "train.parquet"),
        ("train-00000-of-00002.parquet", "train-00001-of-00003.parquet"),
        ("train-00000-of-00002-0a.parquet", "train-00000-of-00002-1b.parquet"),
    ],
)
def test_two_files_for_one_split_are_refused_in_one_sentence(tmp_path, names):
    for name in names:
        write(tmp_path / name)
    refused(
        r"^dataset: got '.* for the (train|validation) split in .*accepted: one file for a split, or all",
        tmp_path,
    )


def test_files_that_name_no_split_are_left_alone(tmp_path):
    for name in ("train.csv", "train.old.csv", "training_log.csv", "test.txt", "all.csv"):
        write(tmp_path / name, FRAME if name == "train.csv" else FRAME.assign(text="other"))
    data = load_reviews(tmp_path)
    assert sorted(t for split in data for t in texts(data, split)) == sorted(FRAME["text"])


def test_shards_with_other_columns_are_refused(tmp_path):
    write(tmp_path / "train-00000-of-00002.csv")
    write(tmp_path / "train-00001-of-00002.csv", FRAME.rename(columns={"text": "review"}))
    refused("a table with the columns of train-00000-of-00002.csv", tmp_path)


def test_json_folders(tmp_path):
    write(tmp_path / "train.json")
    write(tmp_path / "dev.json", FRAME[:6])
    (tmp_path / "test.json").write_text("\n".join(json.dumps(row) for row in FRAME.to_dict("records")))
    data = load_reviews(tmp_path)
    assert [len(data[split]) for split in ("train", "validation", "test")] == [40, 6, 40]


def test_folders_that_save_to_disk_wrote(tmp_path):
    rows = Dataset.from_pandas(FRAME)
    DatasetDict(train=rows, test=rows.select(range(6)), extra=rows).save_to_disk(tmp_path / "dict")
    assert texts(load_reviews(tmp_path / "dict"), "test") == list(FRAME["text"][:6])
    rows.select(range(39, -1, -1)).save_to_disk(tmp_path / "one")
    assert len(load_reviews(tmp_path / "one")["train"]) == 32
    DatasetDict(train=rows, dev=rows, validation=rows).save_to_disk(tmp_path / "two")
    refused("with splits train, dev, validation'; accepted: one validation split", tmp_path / "two")
    (tmp_path / "one" / "dataset_info.json").write_text("{")
    refused("a folder as save_to_disk writes it", tmp_path / "one")


@pytest.mark.parametrize(
    "builder", ["csv", "json", "text", "pandas", "parquet", "arrow", "xml", "imagefolder"]
)
def test_names_of_file_readers_are_no_data_sets(tmp_path, monkeypatch, builder):
    """The datasets library would read the files of the current folder."""
    write(tmp_path / "train.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hybridft_utils.reviews.splits.load_dataset", lambda name: DatasetDict(train=None))
    refused("^dataset: got .*; accepted: a file or folder that exists, or the id of a data set", builder)


def test_a_name_that_no_file_system_takes_is_refused():
    refused("^dataset: got ", "a" * 5000)
    refused("^dataset: got ", "folder/" + "a" * 300 + ".csv")
    refused("^dataset: got ", "a\0b.csv")


@pytest.mark.parametrize("name", ["", 0])
def test_a_column_without_a_name_is_refused(tmp_path, name):
    pd.DataFrame({"": FRAME["text"], **FRAME}).to_csv(tmp_path / "r.csv", index=False)
    refused(
        f"^text_column: got {name!r}; accepted: one of the columns ", tmp_path / "r.csv", text_column=name
    )
    refused(f"^label_column: got {name!r}; ", tmp_path / "r.csv", label_column=name)


def test_a_table_without_header_is_refused_briefly(tmp_path):
    long = pd.DataFrame({"text": ["a long review " * 400] * 20, "label": [0, 1] * 10})
    long.to_csv(tmp_path / "r.csv", index=False, header=False)
    refused(
        r"^text_column: got 'no column .*; accepted: one of the columns a long review .{26}…, 0\.$",
        tmp_path / "r.csv",
    )


def test_one_column_is_not_both_text_and_label(tmp_path):
    write(tmp_path / "r.csv")
    refused("^label_column: got 'text'", tmp_path / "r.csv", label_column="text")
