"""Labels of every way of writing them: names, order, missing ones, and those that training lacks."""

import json
import re

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridft_utils import InputError, PromptClassifier, PromptTemplate, Verbalizer, load_base, load_reviews


def write(folder, labels, split="train", name=None):
    """A csv file with the labels as they are given."""
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
    path = folder / (name or f"{split}.csv")
    frame.to_csv(path, index=False)
    return path


def read(source, **options):
    """Label names, and the label name of each text."""
    data = load_reviews(source, **options)
    names = data["train"].features["label"].names
    return names, {
        text: names[index]
        for rows in data.values()
        for text, index in zip(rows["text"], rows["label"], strict=True)
    }


def refused(message, source, **options):
    with pytest.raises(InputError, match=message) as caught:
        load_reviews(source, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("labels", "options", "names", "means"),
    [
        ([0, 1], {}, ["negative", "positive"], ["negative", "positive"]),
        ([0.0, 1.0], {}, ["negative", "positive"], ["negative", "positive"]),
        (["negative ", "\tpositive"], {}, ["negative", "positive"], ["negative", "positive"]),
        ([-1, 1], {}, ["-1", "1"], ["-1", "1"]),
        ([10, 9], {}, ["9", "10"], ["10", "9"]),
        (["4.5", "2.0"], {}, ["2", "4.5"], ["4.5", "2"]),
        (["false", "true"], {"label_names": ["false", "true"]}, ["false", "true"], ["false", "true"]),
        (["02", "01"], {"label_names": ["01", "02"]}, ["01", "02"], ["02", "01"]),
        (["nan", "null"], {"label_names": ["nan", "null"]}, ["nan", "null"], ["nan", "null"]),
        (["1.0", "2.0"], {"label_names": ["2.0", "1.0"]}, ["2.0", "1.0"], ["1.0", "2.0"]),
        ([1, 0], {"label_names": ["bad", "good"]}, ["bad", "good"], ["good", "bad"]),
        ([2, 1], {"label_names": ["1", "2"]}, ["1", "2"], ["2", "1"]),
        (["TRUE", "FALSE"], {}, ["FALSE", "TRUE"], ["TRUE", "FALSE"]),
    ],
)
def test_names_and_indices(tmp_path, labels, options, names, means):
    got, by_text = read(write(tmp_path, labels * 10), **options)
    assert got == names
    assert [by_text[f"text {i}"] for i in range(20)] == means * 10


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([1, 2, 3], [1, 0, 2], "^label: got '0 in row 2 of the test split'; accepted: one of 1, 2, 3"),
        ([-1, 1, 1], [-1, 1, 0], "^label: got '0 in row 3 of the test split'; accepted: one of -1, 1"),
        ([2, 3, 4, 5], [2, 1], "^label: got '1 in row 2 of the test split'"),
        ([0, 1], [0, 7], "^label: got '7 in row 2 of the test split'; accepted: one of 0, 1"),
        ([0, 1], [0, -1], "^label: got '-1 in row 2 of the test split'"),
        (["good", "bad"], ["fine", "bad"], "^label: got 'fine in row 1 of the test split'"),
        ([1, 1], [0, 1], "^label: got '1'; accepted: at least two different labels in the training split"),
    ],
)
def test_labels_that_training_lacks_are_refused(tmp_path, train, test, message):
    write(tmp_path, train * 10)
    write(tmp_path, test * 10, "test")
    refused(message, tmp_path)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (["bad", "good", "so so"], ["bad", "good"], "^label: got 'so so in row 3 of the train split'"),
        ([0, 1, 2], ["bad", "good"], "^label: got '0 in row 1 of the train split'"),
        (["0", "bad"], ["bad", "good"], "^label: got '0 in row 1 of the train split'"),
        ([0, 1], ["bad"], "^label_names: got "),
        ([0, 1], ["bad", "bad "], "^label_names: got "),
        ([0, 1], "ab", "^label_names: got 'ab'"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, labels, names, message):
    refused(message, write(tmp_path, labels * 10), label_names=names)


@pytest.mark.parametrize("missing", ["", "  ", "NaN", "nan", "<NA>", None, float("nan"), "absent"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_missing_labels_are_refused_naming_the_row_or_dropped(tmp_path, kind, missing):
    labels = ["0", "1"] * 10
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    rows[6]["label"] = missing
    if missing == "absent":
        del rows[6]["label"]
    path = tmp_path / f"table.{kind}"
    if kind == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pd.DataFrame(rows).to_parquet(path)
    refused(r"^label: got 'no label in row 7 of the train split \(1 in all\)'", path)
    names, by_text = read(path, drop_empty=True)
    assert names == ["negative", "positive"]
    assert by_text == {f"text {i}": names[int(label)] for i, label in enumerate(labels) if i != 6}


def classes(names, labels, texts=None):
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    texts = texts or [f"text {i}" for i in range(len(labels))]
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)


@pytest.fixture(params=["parquet", "save_to_disk", "hub"])
def source(request, tmp_path, monkeypatch):
    """A function that puts splits where ``load_reviews`` finds them with their features."""

    def put(**splits):
        if request.param == "hub":
            monkeypatch.setattr(
                "hybridft_utils.reviews.splits.load_dataset", lambda name: DatasetDict(splits)
            )
            return "someone/some-set"
        folder = tmp_path / "set"
        if request.param == "save_to_disk":
            DatasetDict(splits).save_to_disk(folder)
        else:
            folder.mkdir()
            for split, rows in splits.items():
                rows.to_parquet(folder / f"{split}.parquet")
        return folder

    return put


def test_class_labels_give_names_and_order(source):
    found = source(train=classes(["positive", "negative"], [0, 1] * 10))
    names, by_text = read(found)
    assert names == ["positive", "negative"]
    assert by_text["text 0"] == "positive" and by_text["text 1"] == "negative"
    assert read(found, label_names=["negative", "positive"])[1] == by_text


def test_class_labels_can_be_renamed_in_their_order(source):
    found = source(train=classes(["World", "Sports", "Business"], [2, 1, 0] * 10))
    assert read(found)[0] == ["World", "Sports", "Business"]
    names, by_text = read(found, label_names=["w", "s", "b"])
    assert names == ["w", "s", "b"] and by_text["text 0"] == "b"
    refused("^label: got 'World in row 3 of the train split'", found, label_names=["Sports", "Business"])
    refused("^label: got 'Business in row 1", found, label_names=["World", "Sports", "Biz"])


def test_class_labels_that_are_numbers_are_numbers(source):
    names, by_text = read(source(train=classes(["0", "1"], [1, 0] * 10)))
    assert names == ["negative", "positive"] and by_text["text 0"] == "positive"


def test_hidden_test_labels_are_replaced_by_a_split_cut_from_training(source):
    """SST-2 as the Hub has it: columns idx, sentence and label, and -1 for every test label."""
    made = {
        split: classes(["negative", "positive"], labels)
        .rename_column("text", "sentence")
        .add_column("idx", range(len(labels)))
        for split, labels in {"train": [0, 1] * 20, "validation": [1, 0], "test": [-1] * 5}.items()
    }
    with pytest.warns(UserWarning, match="The test split has no labels; one is cut from the training split"):
        data = load_reviews(source(**made))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 36, "validation": 2, "test": 4}
    assert set(data["test"]["text"]) | set(data["train"]["text"]) == set(made["train"]["sentence"])


@pytest.mark.parametrize("hidden", [[-1] * 6, [""] * 6, None])
def test_tables_with_hidden_test_labels(tmp_path, hidden):
    write(tmp_path, [0, 1] * 20)
    path = write(tmp_path, hidden or [0] * 6, "test")
    if hidden is None:
        pd.read_csv(path)[["text"]].to_csv(path, index=False)
    with pytest.warns(UserWarning, match="The test split has no labels"):
        data = load_reviews(tmp_path)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 32, "validation": 4, "test": 4}


def test_a_test_split_of_a_real_minus_one_is_kept(tmp_path):
    write(tmp_path, [-1, 1] * 20)
    write(tmp_path, [-1] * 6, "test")
    assert len(load_reviews(tmp_path)["test"]) == 6


def test_class_labels_in_another_order_do_not_change_accuracy(tmp_path):
    """The built-in reviews with positive as class 0: zero-shot still finds 62.1 % of the test labels."""
    reviews = load_reviews("builtin:reviews-en")
    for split, rows in reviews.items():
        turned = classes(["positive", "negative"], [1 - label for label in rows["label"]], list(rows["text"]))
        turned.to_parquet(tmp_path / f"{split}.parquet")
    test = load_reviews(tmp_path)["test"]
    names = test.features["label"].names
    model, tokenizer = load_base("builtin:movies")
    words = {"positive": ["great"], "negative": ["terrible"]}
    verbalizer = Verbalizer({name: words[name] for name in names})
    classifier = PromptClassifier(model, tokenizer, PromptTemplate(), verbalizer)
    classifier.calibrate()
    predicted = classifier.predict(list(test["text"]))
    right = [name == names[label] for name, label in zip(predicted, test["label"], strict=True)]
    assert sum(right) / len(right) == pytest.approx(0.621, abs=0.005)


names_of_labels = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
    lambda name: name == name.strip() and name not in ("nan", "NaN", "<NA>") and not re.search(r"\.0+$", name)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(names_of_labels, min_size=2, max_size=4, unique=True), named=st.booleans())
def test_any_named_labels_are_read_as_they_are(tmp_path, names, named):
    rows = [{"text": f"text {i}", "label": name} for i, name in enumerate(names * 8)]
    path = tmp_path / "table.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    got, by_text = read(path, label_names=names if named else None)
    if named:
        assert got == names
    if named or set(names) != {"0", "1"}:
        assert by_text == {row["text"]: row["label"] for row in rows}
