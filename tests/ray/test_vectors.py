"""The step of a pipeline, called as Ray's workers call it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actvec.client import Client, Document
from actvec.client.documents import open_documents
from actvec.client.samples import sample_corpus
from actvec.ray import ActivationVectors, PartialMeans
from actvec.ray.batches import RowColumns, documents_of
from actvec.ray.documents import SOURCE_COLUMNS, keep_documents, unreadable
from actvec.server.errors import MeanMismatchError, RequestError
from actvec.server.means.format import decode
from tests.ray.conftest import TEXTS
from tests.server.chats import TEMPLATE, save_chat_model


@pytest.fixture(scope="module")
def add_vectors():
    return ActivationVectors(mode="short")


def rows(**columns):
    return pa.table({"id": ["a", "b", "c"], "text": [TEXTS[0], " ", None], **columns})


def test_rows_gain_four_columns(add_vectors, demo_server):
    made = add_vectors(rows(source=[1, 2, 3]))
    assert made.column_names == [
        *("id", "text", "source", "vector", "tokens", "tokens_used", "error")
    ]
    with Client(demo_server.target) as client:
        expected = client.extract(TEXTS[0], mode="short")
    vector, *nothing = made["vector"].to_pylist()
    assert np.array_equal(np.float32(vector), expected.values)
    assert nothing == [None, None]
    assert made["tokens"].to_pylist() == [expected.tokens, None, None]
    good, blank, null = made["error"].to_pylist()
    assert good is None
    assert blank.startswith("INVALID_ARGUMENT: text: is empty or blank")
    assert null == "INVALID_ARGUMENT: text: is null"
    assert made["source"].to_pylist() == [1, 2, 3]


def test_stamp_is_in_the_schema(add_vectors, demo_server):
    with Client(demo_server.target) as client:
        expected = client.extract(TEXTS[0], mode="short").stamp
    made = add_vectors(rows().replace_schema_metadata({"mine": "kept"}))
    assert made.schema.metadata[b"mine"] == b"kept"
    assert json.loads(made.schema.metadata[b"actvec.stamp"]) == expected.to_dict()


@pytest.mark.parametrize("form", ["numpy", "pandas"])
def test_other_batch_formats_work(add_vectors, form):
    table = pa.table({"id": ["a", "b"], "text": TEXTS[:2]})
    batch = (
        table.to_pandas()
        if form == "pandas"
        else {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    )
    assert add_vectors(batch)["vector"].equals(add_vectors(table)["vector"])


def test_vector_does_not_depend_on_its_batch(add_vectors):
    together = add_vectors(pa.table({"id": [str(i) for i in range(50)], "text": TEXTS[:50]}))
    alone = add_vectors(pa.table({"id": ["7"], "text": [TEXTS[7]]}))
    assert together["vector"][7] == alone["vector"][0]


CHAT = [{"role": "user", "content": "Is it open?"}, {"role": "assistant", "content": "Not yet."}]


@pytest.fixture(scope="module")
def chats(start_server, tmp_path_factory):
    """A model with a chat template, in a folder, and a server of it."""
    folder = save_chat_model(tmp_path_factory.mktemp("chats"), TEMPLATE + "{{ mark }}")
    return folder, start_server(f"--model={folder}")


@pytest.mark.parametrize(("pool", "failed"), [("mean", 2), ("span:answer", 3)])
def test_chats_ids_and_spans_are_documents_too(chats, pool, failed):
    folder, server = chats
    span = {"name": "answer", "start": 0, "end": 3}
    table = pa.table(
        {
            "text": [None, "It is open again.", None, None, "Both."],
            "ids": [[1, 2, 3, 4], None, None, None, [1]],
            "chat": [None, None, CHAT, None, None],
            "where": [[span], [span], None, None, None],
        }
    )
    made = ActivationVectors(
        model=str(folder),
        pools=[pool],
        id_column=None,
        messages_column="chat",
        token_ids_column="ids",
        spans_column="where",
    )(table)
    documents = [
        Document("", token_ids=[1, 2, 3, 4], spans=[span]),
        Document("", "It is open again.", spans=[span]),
        Document("", messages=CHAT),
    ]
    with Client(server.target) as client:
        for document, vector in zip(
            documents[: 5 - failed], made["vector"].to_pylist(), strict=False
        ):
            expected = client.extract(document, pools=[pool])
            assert np.array_equal(np.float32(vector), expected.values)
    errors = made["error"].to_pylist()
    assert [error is not None for error in errors] == [False] * (5 - failed) + [True] * failed
    assert errors[3] == "INVALID_ARGUMENT: chat, ids, text: is null"
    assert errors[4].startswith("INVALID_ARGUMENT: a document has one of text, messages, token_ids")


def test_documents_on_disk_are_those_of_the_corpus(tmp_path):
    """Whatever they hold: a chat once became a row without a text."""
    lines = [
        {"id": "a", "text": "A text.", "spans": [{"name": "noun", "start": 2, "end": 6}]},
        {"id": "b", "messages": CHAT},
        {"id": "c", "token_ids": [5, 6, 7]},
        {"id": "d", "text": ""},
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    source = open_documents(path)
    files = sorted(keep_documents(source, tmp_path).iterdir())
    columns = RowColumns(**SOURCE_COLUMNS)
    assert list(documents_of(pq.read_table(files[0]), columns)) == list(source)


def test_half_a_character_costs_one_document(tmp_path):
    """JSON can name half of a surrogate pair, which no file can hold."""
    lines = [{"id": "a", "text": "A \ud800 text."}, {"id": "\udfff", "text": "B"}, {"text": "C"}]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    (file,) = keep_documents(open_documents(path), tmp_path).iterdir()
    assert pq.read_table(file)["index"].to_pylist() == [2]
    failures = unreadable(tmp_path)
    assert [(one.index, one.field) for one in failures] == [(0, "text"), (1, "id")]
    assert failures[0].message.startswith("the text of document 'a' cannot be written in UTF-8")


def test_texts_may_be_missing_beside_chats(chats):
    folder, _ = chats
    add_vectors = ActivationVectors(
        model=str(folder), mode="short", messages_column="messages", id_column=None
    )
    assert add_vectors(pa.table({"messages": [CHAT]}))["error"].to_pylist() == [None]
    with pytest.raises(RequestError, match="messages_column: is 'messages'; the columns are: text"):
        add_vectors(pa.table({"text": ["A text."]}))


def test_workers_take_the_options_of_a_chat(chats):
    folder, server = chats
    options = {"add_generation_prompt": True, "chat_template_kwargs": {"mark": "!"}}
    columns = {"messages_column": "messages", "text_column": None, "id_column": None}
    table = pa.table({"messages": [CHAT]})
    made = ActivationVectors(model=str(folder), mode="short", **options, **columns)(table)
    with Client(server.target) as client:
        expected = client.extract(Document("", messages=CHAT), mode="short", **options)
    assert np.array_equal(np.float32(made["vector"][0].as_py()), expected.values)
    stamp = json.loads(made.schema.metadata[b"actvec.stamp"])
    assert stamp == expected.stamp.to_dict()
    (sums,) = PartialMeans(name="m", model=str(folder), **options, **columns)(table).to_pylist()
    assert decode(sums["part"]).counts.sum() == expected.tokens


def test_empty_batch_keeps_its_columns(add_vectors):
    made = add_vectors(rows().slice(0, 0))
    assert (len(made), made["vector"].type) == (0, pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"id": ["a"], "body": ["b"]}), "text_column: is 'text'; the columns are: id, b"),
        (pa.table({"text": ["b"]}), "id_column: is 'id'"),
        (pa.table({"id": ["a"], "text": [3]}), "holds int, not strings"),
        (rows(vector=[1, 2, 3]), "'vector' already"),
    ],
)
def test_wrong_columns_are_refused(add_vectors, table, message):
    with pytest.raises(RequestError, match=message):
        add_vectors(table)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="color"):
        ActivationVectors(mode="short", color="blue")
    with pytest.raises(ValueError, match="short, long"):
        ActivationVectors(mode="medium")


def test_mean_file_centers(demo_server, tmp_path):
    path = tmp_path / "mean.safetensors"
    with Client(demo_server.target) as client:
        mean = client.corpus_mean(sample_corpus(), job="for-ray")
        path.write_bytes(client.download_mean(mean.id).content)
        expected = client.extract(TEXTS[0], mode="long", center=mean.id)
    add_vectors = ActivationVectors(mode="long", center=path)
    made = add_vectors(rows())
    assert np.array_equal(np.float32(made["vector"][0].as_py()), expected.values)
    assert add_vectors.stamp == expected.stamp
    with pytest.raises(MeanMismatchError):
        ActivationVectors(mode="short", center=path, layers=[1])
    with pytest.raises(RequestError, match="cannot be read from"):
        ActivationVectors(mode="short", center=tmp_path / "none")
