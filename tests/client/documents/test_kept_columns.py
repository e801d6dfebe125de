"""Columns of the input that each document keeps."""

import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actvec.client import Failure, UnsupportedInput
from actvec.client.documents import Columns, Shard, open_documents

KEEP = Columns(keep=("label", "year"))
ROWS = [{"text": f"text {n}", "label": f"l{n}", "year": 2000 + n, "other": n} for n in range(4)]
NAMES = ["corpus.jsonl", "corpus.parquet"]


def written(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(params=NAMES)
def corpus(request, tmp_path):
    return written(tmp_path / request.param, ROWS)


def test_documents_have_the_columns_that_are_kept(corpus):
    source = open_documents(corpus, columns=KEEP)
    assert source.kept == ("label", "year")
    assert [one.columns for one in source] == [
        {"label": f"l{n}", "year": 2000 + n} for n in range(4)
    ]


def test_documents_have_no_columns_by_default(corpus):
    assert [one.columns for one in open_documents(corpus)] == [{}] * 4


def test_shards_keep_columns(corpus):
    source = open_documents(corpus, Shard(2, 2), KEEP)
    assert source.kept == ("label", "year")
    assert [one.columns["label"] for one in source] == ["l1", "l3"]


@pytest.mark.parametrize("name", NAMES)
def test_missing_values_are_none(tmp_path, name):
    rows = [{"text": "one", "label": "x", "year": 1}, {"text": "two", "label": None}]
    source = open_documents(written(tmp_path / name, rows), columns=KEEP)
    assert [one.columns for one in source] == [
        {"label": "x", "year": 1},
        {"label": None, "year": None},
    ]


@pytest.mark.parametrize("name", NAMES)
def test_failures_keep_columns(tmp_path, name):
    rows = [{"text": "one", "label": "x", "year": 1}, {"text": None, "label": "y", "year": 2}]
    _, failure = open_documents(written(tmp_path / name, rows), columns=KEEP)
    assert isinstance(failure, Failure)
    assert failure.columns == {"label": "y", "year": 2}


def test_unknown_columns_are_refused_with_advice(corpus):
    with pytest.raises(UnsupportedInput, match="no column 'topic'; there are: text, label, year"):
        open_documents(corpus, columns=Columns(keep=("label", "topic")))


def test_texts_and_ids_can_be_kept_too(corpus):
    first = next(iter(open_documents(corpus, columns=Columns(id="label", keep=("label", "text")))))
    assert (first.id, first.columns) == ("l0", {"label": "l0", "text": "text 0"})


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            Columns(keep=("meta",)),
            "'meta' holds an object, not a string, a number, a boolean or null",
        ),
        (Columns("meta"), "'meta' holds an object, not a string or a list"),
        (Columns(id="meta"), "'meta' holds an object, not a string or an integer"),
    ],
)
def test_fields_of_other_kinds_stop_at_once(tmp_path, columns, reason):
    rows = [{"text": f"text {n}", "meta": {"n": n}} for n in range(120)]
    path = written(tmp_path / "corpus.jsonl", rows)
    with pytest.raises(UnsupportedInput) as refused:
        open_documents(path, columns=columns)
    assert "the first 100 documents: column" in str(refused.value)
    assert f"{reason}, in each of them; there are: text, meta" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(2**50, pa.timestamp("s")), (2**30, pa.date32()), (0, pa.timestamp("us", "Mars/Base"))],
    ids=["year", "day", "zone"],
)
def test_dates_beyond_python_fail_their_document(tmp_path, value, kind):
    table = pa.table({"text": ["one", "two"], "year": pa.array([value, None], kind)})
    pq.write_table(table, tmp_path / "corpus.parquet")
    failure, document = open_documents(tmp_path / "corpus.parquet", columns=Columns(keep=("year",)))
    assert isinstance(failure, Failure)
    assert "row 1: column 'year': " in failure.message
    assert (document.text, document.columns) == ("two", {"year": None})


def test_nested_values_fail_their_document(tmp_path):
    rows = [{"text": "one", "label": {"a": 1}}, {"text": "two", "label": "x"}]
    failure, document = open_documents(
        written(tmp_path / "corpus.jsonl", rows), columns=Columns(keep=("label",))
    )
    assert (failure.field, document.columns) == ("columns", {"label": "x"})
    assert "line 1: column 'label' holds a dict" in failure.message


def test_nested_columns_of_parquet_are_refused(tmp_path):
    path = written(tmp_path / "corpus.parquet", [{"text": "one", "label": [1, 2]}])
    with pytest.raises(UnsupportedInput, match=r"'label' holds list.*, not strings, numbers"):
        open_documents(path, columns=Columns(keep=("label",)))


def test_types_of_parquet_are_kept(tmp_path):
    table = pa.table(
        {
            "text": ["one"],
            "category": pa.array(["news"]).dictionary_encode(),
            "day": pa.array([dt.date(2024, 7, 26)]),
            "score": pa.array([0.5], pa.float32()),
            "good": [True],
            "nothing": pa.nulls(1),
        }
    )
    pq.write_table(table, tmp_path / "corpus.parquet")
    kept = ("category", "day", "score", "good", "nothing")
    (document,) = open_documents(tmp_path / "corpus.parquet", columns=Columns(keep=kept))
    assert document.columns == {
        "category": "news",
        "day": "2024-07-26",
        "score": 0.5,
        "good": True,
        "nothing": None,
    }


def test_kept_columns_identify_the_input(corpus):
    plain, kept = open_documents(corpus), open_documents(corpus, columns=KEEP)
    assert kept.identity() != plain.identity()
    assert kept.identity()["columns"]["keep"] == ["label", "year"]
    assert "keep" not in open_documents(corpus, columns=Columns("label")).identity()["columns"]


def test_folders_have_no_columns_to_keep(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(UnsupportedInput, match="its text files have no columns"):
        open_documents(tmp_path, columns=KEEP)
