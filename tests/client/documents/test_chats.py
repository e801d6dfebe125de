"""Chats, token ids and spans from files, in every format that has columns."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actvec.client import Document, Failure
from actvec.client.documents import Columns, open_documents
from actvec.client.errors import UnsupportedInput
from actvec.client.records.inputs import as_document, size_of

CHAT = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello."}]
SPANS = [{"name": "end", "start": 2, "end": 4}]
RECORDS = [
    {"id": "a", "text": "Some text.", "spans": SPANS},
    {"id": "b", "messages": CHAT},
    {"id": "c", "token_ids": [5, 8, 2], "spans": SPANS},
]
DOCUMENTS = [
    Document("a", "Some text.", spans=[("end", 2, 4)]),
    Document("b", messages=CHAT),
    Document("c", token_ids=[5, 8, 2], spans=[("end", 2, 4)]),
]


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_parquet(path, records):
    # In this order, to include a column that the first records lack.
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    pq.write_table(pa.table(columns), path)


FORMATS = pytest.mark.parametrize(
    ("name", "write"), [("c.jsonl", write_jsonl), ("c.parquet", write_parquet)]
)


@FORMATS
def test_each_record_has_its_source(tmp_path, name, write):
    write(tmp_path / name, RECORDS)
    source = open_documents(tmp_path / name)
    assert list(source) == DOCUMENTS
    assert source.size > 0
    assert [one.end for one in source.scan()][-1] == source.size


@FORMATS
def test_text_comes_before_messages(tmp_path, name, write):
    write(tmp_path / name, [{"text": "The text.", "messages": CHAT}])
    assert list(open_documents(tmp_path / name)) == [Document("1", "The text.")]


@FORMATS
@pytest.mark.parametrize(
    ("value", "document"),
    [
        (CHAT, Document("1", messages=CHAT)),
        ([5, 8], Document("1", token_ids=[5, 8])),
        ("Words.", Document("1", "Words.")),
    ],
    ids=["chat", "ids", "text"],
)
def test_a_named_column_holds_any_source(tmp_path, name, write, value, document):
    write(tmp_path / name, [{"text": "Another.", "mine": value}])
    assert list(open_documents(tmp_path / name, columns=Columns("mine"))) == [document]


@FORMATS
def test_fields_that_no_template_reads_are_ignored(tmp_path, name, write):
    chat = [one | {"country": "NZ", "tool_calls": [], "name": None} for one in CHAT]
    write(tmp_path / name, [{"messages": chat}])
    assert list(open_documents(tmp_path / name)) == [Document("1", messages=CHAT)]


@FORMATS
def test_a_content_may_be_one_part_of_text(tmp_path, name, write):
    chat = [one | {"content": [{"type": "text", "text": one["content"]}]} for one in CHAT]
    write(tmp_path / name, [{"messages": chat}])
    assert list(open_documents(tmp_path / name)) == [Document("1", messages=CHAT)]


@FORMATS
@pytest.mark.parametrize("name_of_chat", ["conversations", "messages"])
def test_chats_come_in_the_form_of_sharegpt(tmp_path, name, write, name_of_chat):
    chat = [
        {"from": "system", "value": "Be kind.", "weight": 0},
        {"from": "human", "value": "Hello!", "weight": 0},
        {"from": "gpt", "value": "Hello.", "weight": 1},
    ]
    write(tmp_path / name, [{"id": "a", name_of_chat: chat}])
    expected = Document("a", messages=[{"role": "system", "content": "Be kind."}, *CHAT])
    assert list(open_documents(tmp_path / name)) == [expected]
    assert as_document({"id": "a", name_of_chat: chat}, 0) == expected
    assert size_of({name_of_chat: chat}) == len("Be kind.Hello!Hello.")


def test_chats_of_both_forms_may_be_in_one_column(tmp_path):
    rows = [{"messages": CHAT}, {"messages": [{"from": "human", "value": "Hello!"}]}]
    write_parquet(tmp_path / "c.parquet", rows)
    assert list(open_documents(tmp_path / "c.parquet")) == [
        Document("1", messages=CHAT),
        Document("2", messages=CHAT[:1]),
    ]


@FORMATS
def test_conversations_of_a_text_are_another_column(tmp_path, name, write):
    write(tmp_path / name, [{"text": "The text.", "conversations": {"a": 1}, "messages": "none"}])
    assert list(open_documents(tmp_path / name)) == [Document("1", "The text.")]
    assert as_document({"text": "The text.", "conversations": 5}, 1) == Document("1", "The text.")


@FORMATS
@pytest.mark.parametrize("field", ["messages", "token_ids", "conversations"])
def test_chat_that_is_a_string_is_no_text(tmp_path, name, write, field):
    write(tmp_path / name, [{field: json.dumps(CHAT)}])
    if name.endswith("parquet"):
        with pytest.raises(UnsupportedInput, match=f"'{field}' holds string, not lists"):
            open_documents(tmp_path / name)
    else:
        (failure,) = open_documents(tmp_path / name)
        assert f"`{field}` is a list, not a string" in failure.message
    assert [one.text for one in open_documents(tmp_path / name, columns=Columns(field))]


@pytest.mark.parametrize("name", ["c.jsonl", "c.parquet"])
@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        ({"messages": [{"from": "bing", "value": "x"}]}, "messages", "not from 'bing'"),
        ({"messages": [{"from": "gpt", "value": None}]}, "messages", "a role and a content"),
        ({"messages": [{"role": "user"}]}, "messages", "a role and a content"),
        (
            {"messages": [{"role": "user", "content": "x", "from": "gpt", "value": "y"}]},
            *("messages", "or from and value, not both"),
        ),
        ({"messages": [{"role": "user", "content": "x", "tool": "y"}]}, "messages", "no tool"),
        ({"messages": CHAT, "spans": SPANS}, "spans", "spans by role"),
        ({"text": "x", "spans": [{"name": "a", "start": 3, "end": 3}]}, "spans", "ends at 3"),
        ({"text": "x", "spans": [{"name": "a b", "start": 0, "end": 1}]}, "spans", "a b"),
        ({"text": "x", "spans": [{"label": "a", "start": 0, "end": 1}]}, "spans", "a name"),
        ({"token_ids": [-1]}, "token_ids", "from 0 to"),
    ],
    ids=["sender", "value", "content", "both", "tool", "spans", "empty", "name", "label", "id"],
)
def test_a_bad_record_fails_alone(tmp_path, name, record, field, reason):
    write = write_jsonl if name.endswith("jsonl") else write_parquet
    write(tmp_path / name, [record, record | {"messages": None, "spans": None, "text": "Fine."}])
    bad, good = open_documents(tmp_path / name)
    assert isinstance(bad, Failure)
    assert (bad.id, bad.code, bad.field) == ("1", "INVALID_ARGUMENT", field)
    assert reason in bad.message
    assert good.text == "Fine."


def test_parquet_of_other_columns_is_refused(tmp_path):
    write_parquet(tmp_path / "c.parquet", [{"text": "x", "spans": "end"}])
    with pytest.raises(Exception, match="'spans' holds string, not lists of spans"):
        open_documents(tmp_path / "c.parquet")
