"""The columns of a document: allowed values, and conversions."""

import datetime as dt
import pickle

import numpy as np
import pandas as pd
import pytest

from actvec.client import Document, Failure
from actvec.client.records.inputs import as_document, size_of


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("news", "news"),
        (3, 3),
        (0.5, 0.5),
        (True, True),
        (None, None),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(1), True),
        (np.str_("news"), "news"),
        (float("nan"), None),
        (np.float32("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        (dt.date(2024, 7, 26), "2024-07-26"),
        (dt.datetime(2024, 7, 26, 9, 5, tzinfo=dt.UTC), "2024-07-26T09:05:00+00:00"),
        (pd.Timestamp("2024-07-26"), "2024-07-26T00:00:00"),
        (np.datetime64("2024-07-26"), "2024-07-26"),
    ],
)
def test_values_become_those_of_json(given, kept):
    columns = Document("a", "text", columns={"x": given}).columns
    assert (columns, type(columns["x"])) == ({"x": kept}, type(kept))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tags": ["a", "b"]}, "column 'tags' holds a list; it may hold strings, numbers"),
        ({"score": float("inf")}, "column 'score' holds inf, which JSON does not have"),
        ({"label": "a\ud800"}, "column 'label' cannot be written in UTF-8: character 1"),
        ({7: "a"}, "the name of a column is a str, not int"),
        (["a"], "columns are a dict of names and values, not list"),
    ],
)
def test_other_values_are_refused(columns, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Document("a", "text", columns=columns)
    failure = as_document({"id": "a", "text": "text", "columns": columns}, 0)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.field) == ("INVALID_ARGUMENT", "columns")
    assert message in failure.message


def test_columns_are_no_part_of_a_document():
    one, other = (Document("a", "text", columns={"label": label}) for label in ("x", "y"))
    assert (one, hash(one), one.digest()) == (other, hash(other), other.digest())
    assert pickle.loads(pickle.dumps(one)).columns == {"label": "x"}  # noqa: S301 - our own


def test_columns_survive_a_failure():
    failure = as_document({"text": "text", "spans": [1], "columns": {"label": "x"}}, 0)
    assert (failure.field, failure.columns) == ("spans", {"label": "x"})
    assert failure.to_dict()["columns"] == {"label": "x"}
    assert "columns" not in Failure("a", "INTERNAL", "broken").to_dict()


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_missing_values_of_a_row_do_not_count(missing):
    row = dict.fromkeys(("text", "messages", "token_ids", "spans", "columns", "id"), missing)
    assert as_document(row | {"text": "text"}, 7) == Document("7", "text")
    failure = as_document(row, 7)
    assert isinstance(failure, Failure)
    assert (failure.id, failure.field) == ("7", "text")


def test_chats_in_arrays_count_towards_the_window():
    chat = np.array([{"role": "user", "content": "text"}, {"from": "gpt", "value": "more"}])
    assert size_of({"messages": chat}) == 8
    assert size_of({"messages": "no chat"}) == size_of({"messages": iter(chat)}) == 0


def test_columns_count_towards_the_window():
    columns = {"url": "u" * 1000, "year": 2024}
    assert size_of(Document("a", "text", columns=columns)) == 1004
    assert size_of({"text": "text", "columns": columns}) == 1004
    assert size_of({"text": "text", "columns": ["not", "columns"]}) == 4
