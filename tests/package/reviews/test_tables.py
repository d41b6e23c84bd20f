"""read_table: every kind of file, values exactly as they are written."""

import gzip
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hybridft_utils import InputError
from hybridft_utils.reviews.tables import read_table

#: Strings that a reader which guesses types turns into something else.
GUESSED = [
    "007",
    "1.10",
    "TRUE",
    "1e400",
    "NA",
    "null",
    "None",
    "nan",
    "1_000",
    "2020-01-01",
    "-0",
    "0x10",
    "∞",
]
HARD = [
    'a "quoted" word',
    "a, b; c",
    "two\nlines",
    "two\r\nlines",
    "line\u2028separator",
    "next\x85line",
    "tab\there",
]
TEXTS = GUESSED + HARD
FRAME = pd.DataFrame({"text": TEXTS, "label": [str(i % 2) for i in range(len(TEXTS))]})


def write_csv(frame, path):
    frame.to_csv(path, index=False)


def write_semicolons(frame, path):
    frame.to_csv(path, index=False, sep=";")


def write_excel_csv(frame, path):
    frame.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")


def write_tsv(frame, path):
    frame.to_csv(path, index=False, sep="\t")


def write_json(frame, path):
    frame.to_json(path)


def write_records(frame, path):
    path.write_text(json.dumps(frame.to_dict("records"), ensure_ascii=False), encoding="utf-8")


def write_jsonl(frame, path):
    rows = [json.dumps(row, ensure_ascii=False) for row in frame.to_dict("records")]
    path.write_text("\n".join(rows), encoding="utf-8")


def write_pandas_jsonl(frame, path):
    frame.to_json(path, orient="records", lines=True)


def write_parquet(frame, path):
    frame.to_parquet(path)


WRITERS = {
    "csv": write_csv,
    "semicolons.csv": write_semicolons,
    "excel.csv": write_excel_csv,
    "tsv": write_tsv,
    "json": write_json,
    "records.json": write_records,
    "lines.json": write_jsonl,
    "jsonl": write_jsonl,
    "pandas.jsonl": write_pandas_jsonl,
    "parquet": write_parquet,
}


def written(folder, name, frame=FRAME):
    path = folder / f"table.{name}"
    WRITERS[name](frame, path)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_values_stay_as_they_are_written(tmp_path, name):
    pd.testing.assert_frame_equal(read_table(written(tmp_path, name)), FRAME.astype(object))


@pytest.mark.parametrize("name", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_gzip_of_every_kind(tmp_path, name):
    path = written(tmp_path, name)
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    pd.testing.assert_frame_equal(read_table(packed), FRAME.astype(object))


#: Any text but a lone carriage return, which pandas on Python 3.11 does not quote, and half characters.
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
tricky = st.text(st.sampled_from("ab01.,;\t\n\"'\\ -\u2028\ufeff"), max_size=8)
tables = st.lists(
    st.tuples(anything | tricky | st.sampled_from(TEXTS), anything | tricky), min_size=1, max_size=6
)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables)
def test_any_table_comes_back_as_it_was_written(tmp_path, name, rows):
    frame = pd.DataFrame(rows, columns=["text", "label"])
    path = written(tmp_path, name, frame)
    try:
        read = read_table(path)
    except InputError as error:
        # A line break beside a tab can make a quoted table look like a plain one: this is said, not guessed.
        assert name == "tsv" and "quotes that may be text or may quote fields" in str(error)
        assume(False)
    pd.testing.assert_frame_equal(read, frame.astype(object))


plain = st.text(st.sampled_from("ab \"'\\,"), min_size=1, max_size=8)
plain = plain.filter(lambda text: not (text.startswith('"') and text.endswith('"') and '""' in text))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(plain, st.sampled_from("01")), min_size=1, max_size=6))
def test_any_plain_tsv_keeps_its_quotes(tmp_path, rows):
    path = tmp_path / "plain.tsv"
    path.write_text("\n".join("\t".join(row) for row in [("text", "label"), *rows]), encoding="utf-8")
    try:
        read = read_table(path)
    except InputError as error:
        assert "quotes that may be text or may quote fields" in str(error)
        assume(False)
    assert list(read.itertuples(index=False, name=None)) == rows


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text\tlabel\n"Great" and "fun".\t1\n', ['"Great" and "fun".']),
        ('text\tlabel\n"Great"\t1\nDull.\t0\n', ['"Great"', "Dull."]),
        ('text\tlabel\n"Great\t1\nDull.\t0\n', ['"Great', "Dull."]),
        ('text\tlabel\n"She said ""no""."\t1\nDull.\t0\n', ['She said "no".', "Dull."]),
        ('text\tlabel\n"Two\nlines"\t1\nDull.\t0\n', ["Two\nlines", "Dull."]),
        ('"text"\t"label"\n"Great"\t"1"\n', ["Great"]),
        ('text\tlabel\n"A\rB"\t1\n', ["A\rB"]),
    ],
)
def test_tsv_plain_and_quoted(tmp_path, content, texts):
    path = tmp_path / "table.tsv"
    path.write_bytes(content.encode())
    assert list(read_table(path)["text"]) == texts


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nGood, really good,1\n", "row 1 has 3 fields, the header 2"),
        ("a.csv", "text,label\nGood,1\nBad\n", "row 2 has 1 fields, the header 2"),
        ("a.csv", "text,label,text\na,1,b\n", "the column 'text' is there 2 times"),
        ("a.csv", 'text,label\n"Good" film,1\n', "readable csv"),
        ("a.csv", 'text,label\n"Good,1\n', "readable csv"),
        ("a.csv", "text,label\nGood\rBad,1\n", "new-line character seen in unquoted field"),
        ("a.tsv", "text\tlabel\nGood\tfilm\t1\n", "row 1 has 3 fields, the header 2"),
        ("a.tsv", 'text\tlabel\n"a\tb\nc"\t1\n', "quotes that may be text or may quote fields"),
        ("a.tsv", 'text\tlabel\n"a"\t1\n"a ""b"""\t0\n', "quotes that may be text or may quote fields"),
        ("a.jsonl", '{"text": "a", "label": 1, "label": 0}\n', "the column 'label' is there 2 times"),
        ("a.jsonl", '["a", 1]\n', "row 1 is no object"),
        ("a.jsonl", '{"text": "\\ud83d", "label": 1}\n', "surrogates not allowed"),
        ("a.json", '"text"', "neither objects nor a list of them"),
        ("a.json", '{"text": ["a", "b"], "label": [1]}', "readable json"),
        ("a.json", "[" * 100_000, "readable json"),
        ("a.parquet", "text,label\n", "readable parquet"),
        ("a.csv.gz", "text,label\n", "Not a gzipped file"),
        ("a.json", "", "not empty"),
        ("a.csv", "text,label\n", "not empty"),
        ("a.xlsx", "", "ending in csv, tsv, json, jsonl, parquet"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_in_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content.encode())
    refused(path, message)


def test_missing_files_are_refused(tmp_path):
    refused(tmp_path / "none.csv", "No such file")


def test_blank_lines_are_rows_of_a_table_with_one_column_alone(tmp_path):
    (tmp_path / "one.csv").write_text("text\nGood\n\nBad\n\n\n")
    assert list(read_table(tmp_path / "one.csv")["text"]) == ["Good", "", "Bad"]
    (tmp_path / "two.csv").write_text("text,label\nGood,1\n\nBad,0\n\n\n")
    assert list(read_table(tmp_path / "two.csv")["text"]) == ["Good", "Bad"]


def test_json_values_of_other_types_are_as_written(tmp_path):
    rows = '{"n": 1.10, "b": true, "m": null}\n{"n": 1e400, "b": false, "m": NaN}\n{"n": 7, "x": [1]}\n'
    (tmp_path / "a.jsonl").write_text(rows)
    table = read_table(tmp_path / "a.jsonl")
    assert list(table["n"]) == ["1.10", "1e400", "7"]
    assert list(table["b"]) == ["true", "false", None]
    assert list(table["m"]) == [None, None, None]
    assert list(table["x"]) == [None, None, ["1"]]


@pytest.mark.parametrize("index", [[3, 3, 3], ["a", "b", "c"], [10, 5, 7]])
def test_the_index_of_a_parquet_file_does_not_matter(tmp_path, index):
    frame = pd.DataFrame({"text": ["x", None, "z"], "label": [1.0, float("nan"), 0.0]}, index=index)
    frame.to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert list(table.index) == [0, 1, 2]
    assert list(table["text"]) == ["x", None, "z"] and list(table["label"]) == ["1", None, "0"]


def test_parquet_columns_of_every_type(tmp_path):
    table = pa.table(
        {
            "category": pa.array(["b", None, "a"]).dictionary_encode(),
            "bool": [True, None, False],
            "list": [["x"], [], None],
            "int": pa.array([1, None, -1], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet")
    assert list(read["category"]) == ["b", None, "a"]
    assert list(read["bool"]) == ["true", None, "false"]
    assert list(read["list"]) == [["x"], [], None]
    assert list(read["int"]) == ["1", None, "-1"]


def test_repeated_parquet_columns_are_refused(tmp_path):
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "a.parquet"
    )
    refused(tmp_path / "a.parquet", "the column 'text' is there 2 times")


def test_class_labels_of_a_parquet_file_are_names_in_their_order(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["positive", "negative"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    column = read_table(tmp_path / "a.parquet")["label"]
    assert list(column[:2]) == ["positive", "negative"] and column.isna()[2]
    assert list(column.cat.categories) == ["positive", "negative"]
