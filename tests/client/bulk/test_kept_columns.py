"""Columns of the input, beside the vectors in every format."""

import asyncio
import json

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from actvec.client import AsyncClient, Document
from actvec.client.bulk import FileSink, ParquetSink, ShardSink
from actvec.client.documents import Columns, open_documents
from actvec.client.errors import FailedPrecondition, InvalidArgument
from tests.client.bulk.jobs import FORMATS, StopHereError, failures_of, job, stop_after
from tests.client.bulk.test_sinks import make_vector

KEEP = Columns(keep=("label", "year"))
COUNT = 12
FAILS = 5


@pytest.fixture
def corpus(tmp_path):
    rows = [
        {"text": "" if n == FAILS else f"In {1700 + n}.", "label": f"l{n % 2}", "year": 1700 + n}
        for n in range(COUNT)
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def columns_in(folder, layout):
    """The columns of each vector on disk, read without any of our code: index -> columns."""
    if layout == "files":
        records = [json.loads(path.read_text()) for path in folder.glob("*_metadata.json")]
    elif layout == "shards":
        paths = folder.glob("vectors-*.jsonl")
        records = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    else:
        rows = pq.read_table(folder / "vectors.parquet").to_pylist()
        records = [row | {"columns": {"label": row["label"], "year": row["year"]}} for row in rows]
    return {record["index"]: record["columns"] for record in records}


EXPECTED = {n: {"label": f"l{n % 2}", "year": 1700 + n} for n in range(COUNT) if n != FAILS}


@pytest.mark.parametrize("layout", FORMATS)
def test_columns_survive_resuming(corpus, tmp_path, client, layout):
    source = open_documents(corpus, columns=KEEP)
    with pytest.raises(StopHereError):
        job(source, tmp_path / "out", layout, rows_per_file=4, ordered=True).run(
            client, window=1, on_progress=stop_after(6)
        )
    begun = job(source, tmp_path / "out", layout, rows_per_file=4, ordered=True, resume=True)
    assert begun.run(client).resumed_vectors
    assert columns_in(tmp_path / "out", layout) == EXPECTED
    (failure,) = failures_of(tmp_path / "out")
    assert failure["columns"] == {"label": "l1", "year": 1705}


def test_other_columns_do_not_resume_a_job(corpus, tmp_path, client):
    job(open_documents(corpus, columns=KEEP), tmp_path / "out").run(client)
    other = open_documents(corpus, columns=Columns(keep=("label",)))
    with pytest.raises(FailedPrecondition, match="input columns"):
        job(other, tmp_path / "out", resume=True).run(client)


def test_jobs_without_columns_write_none(corpus, tmp_path, client):
    job(corpus, tmp_path / "out").run(client)
    (index,) = (tmp_path / "out").glob("vectors-*.jsonl")
    assert "columns" not in index.read_text()
    assert "columns" not in (tmp_path / "out" / "errors.jsonl").read_text()


def test_parquet_refuses_names_of_its_own(tmp_path, client):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "one", "source": "web"}\n')
    source = open_documents(path, columns=Columns(keep=("source",)))
    with pytest.raises(InvalidArgument, match=r"column 'source' cannot be kept.* or write shards"):
        job(source, tmp_path / "out", "parquet").run(client)
    assert not (tmp_path / "out").exists()
    with ParquetSink(tmp_path / "sink") as sink, pytest.raises(InvalidArgument, match="'vector'"):
        sink.write(make_vector(0, columns={"vector": 1}))
    job(source, tmp_path / "shards", "shards").run(client)
    assert columns_in(tmp_path / "shards", "shards") == {0: {"source": "web"}}


@pytest.mark.parametrize("kind", [FileSink, ShardSink, ParquetSink])
def test_sinks_read_columns_back(tmp_path, kind):
    columns = [{"label": "x", "year": 1}, {"label": None, "year": 2}]
    with kind(tmp_path, **({"run": "one"} if kind is FileSink else {})) as sink:
        for number, one in enumerate(columns):
            sink.write(make_vector(number, columns=one))
        sink.commit()
        found = {row.index: row.columns for row in sink.rows()}
    assert found == dict(enumerate(columns))


A, B = 2**40, 2**70


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        (["a", None, "b"], pa.string(), ["a", None, "b"]),
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([None, A, 3], pa.int64(), [None, A, 3]),
        ([1, 2, 0.5], pa.float64(), [1.0, 2.0, 0.5]),
        ([None, None, None], pa.null(), [None, None, None]),
        ([1, 2, "a"], pa.string(), ["1", "2", "a"]),
        ([1, True, 2], pa.string(), ["1", "true", "2"]),
        (["a", 0.5, None], pa.string(), ["a", "0.5", None]),
        ([1, B, 2], pa.string(), ["1", str(B), "2"]),
        ([1, 0.5, "a"], pa.string(), ["1", "0.5", "a"]),
        (["a", 1.0, 0.5], pa.string(), ["a", "1", "0.5"]),
    ],
)
def test_columns_have_one_type_in_all_files(tmp_path, values, kind, found):
    def write(sink, part):
        with sink:
            for number in part:
                sink.write(make_vector(number, columns={"x": values[number]}))

    write(ParquetSink(tmp_path / "once", rows_per_file=1), range(3))
    for path in (tmp_path / "once").glob("part-*.parquet"):
        assert pq.read_schema(path).field("x").type == kind
    table = pq.read_table(tmp_path / "once")
    assert table["x"].to_pylist() == found
    assert_array_equal(table["vector"].to_pylist(), [make_vector(n).values for n in range(3)])
    write(ParquetSink(tmp_path / "one file"), range(3))
    assert pq.read_table(tmp_path / "one file")["x"].to_pylist() == found
    for number in range(3):
        write(ParquetSink(tmp_path / "often", rows_per_file=1, resume=number > 0), [number])
    for path in (tmp_path / "once").iterdir():
        assert (tmp_path / "often" / path.name).read_bytes() == path.read_bytes()


def test_narrow_files_of_a_kill_are_widened(tmp_path):
    with ParquetSink(tmp_path, rows_per_file=1) as sink:
        sink.write(make_vector(0, columns={"x": 1}))
        narrow = (tmp_path / "part-00000.parquet").read_bytes()
        sink.write(make_vector(1, columns={"x": 0.5}))
    (tmp_path / "part-00000.parquet").write_bytes(narrow)
    ParquetSink(tmp_path, rows_per_file=1, resume=True)
    assert pq.read_table(tmp_path)["x"].to_pylist() == [1.0, 0.5]


def test_columns_that_come_later_are_null_before(tmp_path):
    with ParquetSink(tmp_path, rows_per_file=1) as sink:
        sink.write(make_vector(0))
        sink.write(make_vector(1, columns={"label": "x"}))
        sink.write(make_vector(2, columns={"year": 3}))
    columns = pq.read_table(tmp_path).select(["label", "year"]).to_pylist()
    assert columns == [
        {"label": None, "year": None},
        {"label": "x", "year": None},
        {"label": None, "year": 3},
    ]


def test_columns_are_columns_of_every_reader(tmp_path):
    with ParquetSink(tmp_path, rows_per_file=1) as sink:
        for number, label in enumerate(["x", None]):
            columns = {"label": label, "year": number, "nothing": None}
            sink.write(make_vector(number, columns=columns))
    rows = [("x", 0, None), (None, 1, None)]
    names = ["label", "year", "nothing"]
    assert pl.read_parquet(tmp_path).select(names).rows() == rows
    relation = duckdb.read_parquet(f"{tmp_path}/*.parquet").order("index")
    assert relation.select(", ".join(names)).fetchall() == rows
    assert pd.read_parquet(tmp_path)["label"].dropna().tolist() == ["x"]


def test_vectors_have_the_columns_of_their_documents(client):
    columns = {"label": "x", "year": 3}
    documents = [
        Document("a", "one", columns=columns),
        {"id": "b", "text": "two", "columns": columns | {"more": True}},
        {"id": "c", "text": "", "columns": columns},
    ]
    assert client.extract(documents[0], mode="short").columns == columns
    found = client.vectors(documents, mode="short")
    _, ids, failures = found
    assert ids == ["a", "b"]
    assert found.columns == {"label": ["x", "x"], "year": [3, 3], "more": [None, True]}
    assert [failure.columns for failure in failures] == [columns]


async def test_async_jobs_keep_columns(corpus, tmp_path, demo_server):
    async with AsyncClient(demo_server.target) as client:
        await job(open_documents(corpus, columns=KEEP), tmp_path / "out").run_async(client)
    found = await asyncio.to_thread(columns_in, tmp_path / "out", "shards")
    assert found == EXPECTED
