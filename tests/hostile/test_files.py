"""Damaged files of documents: each yields documents and failures, never an exception."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from actvec.client import ActvecError, Document
from actvec.client.documents import open_documents
from tests.hostile.fuzzing import damaged, explore, texts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
    max_leaves=6,
)
DEEP = st.sampled_from(["[" * 5000, '{"text":' * 5000, '{"text": "a", "id": ' + "9" * 5000 + "}"])
LINES = st.one_of(
    st.builds(json.dumps, st.fixed_dictionaries({"text": texts()}, optional={"id": VALUES})),
    st.builds(json.dumps, st.dictionaries(st.sampled_from(["text", "id"]), VALUES)),
    st.builds(json.dumps, VALUES, ensure_ascii=st.just(False)),
    DEEP,
)


@st.composite
def json_lines(draw):
    lines = draw(st.lists(LINES, max_size=4))
    end = draw(st.sampled_from(["\n", "\r\n", "\u2028", ""]))
    return end.join(lines).encode("utf-8", "surrogatepass")


@st.composite
def parquet(draw):
    kinds = st.sampled_from(
        [pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.list_(pa.string()), pa.null()]
    )
    rows = draw(st.integers(0, 3))
    columns = {}
    for name in draw(st.sets(st.sampled_from(["text", "id", "other"]))):
        kind = draw(kinds)
        value = {pa.binary(): b"\xff", pa.int64(): 7, pa.list_(pa.string()): ["a"]}.get(kind, "a")
        some = [None if kind == pa.null() or draw(st.booleans()) else value for _ in range(rows)]
        columns[name] = pa.array(some, kind)
    file = io.BytesIO()
    codec = draw(st.sampled_from(["none", "snappy", "gzip"]))
    pq.write_table(pa.table(columns), file, compression=codec)
    return file.getvalue()


@st.composite
def tables(draw):
    cells = st.sampled_from(["text", "id", "7", " ", 'a "word"', "two\nlines", "\0", "\udce9"])
    rows = st.lists(st.lists(cells, max_size=3), max_size=4)
    file = io.StringIO()
    csv.writer(file).writerows([draw(st.permutations(["text", "id"])), *draw(rows)])
    return file.getvalue().encode("utf-8", "surrogateescape")


def archives(compress):
    return st.one_of(json_lines().map(compress), damaged(json_lines().map(compress)), st.binary())


CONTENTS = {
    "documents.jsonl": st.one_of(json_lines(), damaged(json_lines()), st.binary()),
    "documents.jsonl.gz": archives(gzip.compress),
    "documents.jsonl.xz": archives(lzma.compress),
    "documents.jsonl.bz2": archives(bz2.compress),
    "documents.csv": st.one_of(tables(), damaged(tables()), st.binary()),
    "documents.parquet": st.one_of(parquet(), damaged(parquet()), st.binary()),
    "documents/one.txt": st.one_of(st.binary(), damaged(texts().map(str.encode))),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_damaged_file_yields_documents_or_failures(amount, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    source = path.parent if path.suffix == ".txt" else path

    def check(content):
        path.write_bytes(content)
        try:
            documents = list(open_documents(source))
        except ActvecError as error:
            assert str(path) in str(error)
            return
        for document in documents:
            if not isinstance(document, Document):
                assert str(path) in document.message

    explore(CONTENTS[name], check, amount(short=80, long=3000))
