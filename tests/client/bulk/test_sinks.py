"""Sinks: vectors in files of many rows, whole, in order, and resumable."""

import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from actvec.client import Pool, Stamp, Vector
from actvec.client.bulk import FileSink, Layout, ParquetSink, ShardSink
from actvec.client.bulk.sinks import numbered_files
from actvec.client.bulk.sinks.sink import DuplicateNameError
from actvec.client.errors import DataLoss, FailedPrecondition, MissingExtra, OutOfRange
from tests.client.bulk.stamp import STAMP
from tests.disk import failing_disk

NUMBERED = pytest.mark.parametrize("kind", [ShardSink, ParquetSink])


def make_vector(index, width=4, stamp=STAMP, columns=None):
    return Vector(
        values=np.arange(width, dtype=np.float32) + index,
        id=f"döc {index}",
        tokens=12 + index,
        tokens_used=10,
        truncated=True,
        smallest_count=3,
        stamp=stamp,
        text_sha256=hashlib.sha256(str(index).encode()).hexdigest(),
        index=index,
        source="messages",
        bos=True,
        columns=columns or {},
    )


def row_of(index):
    """The entry on disk beside the numbers of `make_vector(index)`."""
    return {
        "index": index,
        "id": f"döc {index}",
        "tokens": 12 + index,
        "tokens_used": 10,
        "truncated": True,
        "smallest_count": 3,
        "text_sha256": hashlib.sha256(str(index).encode()).hexdigest(),
        "source": "messages",
        "bos": True,
    }


def write(sink, *indices):
    with sink:
        for index in indices:
            sink.write(make_vector(index))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_are_numbered_and_full(tmp_path):
    write(ShardSink(tmp_path, rows_per_file=3), *range(7))
    assert names(tmp_path) == [
        f"vectors-{number:05d}.{suffix}"
        for number in range(3)
        for suffix in ("jsonl", "safetensors")
    ]
    shapes = [load_file(path)["vec"].shape for path in sorted(tmp_path.glob("*.safetensors"))]
    assert shapes == [(3, 4), (3, 4), (1, 4)]


def test_shard_is_a_tensor_stamp_and_index(tmp_path):
    write(ShardSink(tmp_path), 5, 2)
    with safe_open(tmp_path / "vectors-00000.safetensors", "numpy") as file:
        assert file.keys() == ["vec"]
        values = file.get_tensor("vec")
        assert json.loads(file.metadata()["stamp"]) == json.loads(json.dumps(STAMP.to_dict()))
    assert values.dtype == np.float16
    assert_array_equal(values, [[5, 6, 7, 8], [2, 3, 4, 5]])
    index = (tmp_path / "vectors-00000.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in index] == [
        {"row": 0, "shape": [1, 2, 2]} | row_of(5),
        {"row": 1, "shape": [1, 2, 2]} | row_of(2),
    ]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_parquet_is_read_by_other_tools(tmp_path, dtype):
    write(ParquetSink(tmp_path, rows_per_file=2, dtype=dtype), *range(3))
    assert names(tmp_path) == ["part-00000.parquet", "part-00001.parquet"]
    expected = np.array([make_vector(index).values for index in range(3)])
    rows = [row_of(index) for index in range(3)]

    table = pq.read_table(tmp_path)
    vectors = table.schema.field("vector").type
    assert (vectors.list_size, vectors.value_type.to_pandas_dtype()) == (4, np.dtype(dtype))
    assert json.loads(table.schema.metadata[b"actvec.stamp"])["model"] == "demo"
    assert json.loads(table.schema.metadata[b"actvec.shape"]) == [1, 2, 2]
    assert table.drop_columns("vector").to_pylist() == rows
    assert_array_equal(table["vector"].to_pylist(), expected)

    frame = pd.read_parquet(tmp_path)
    assert_array_equal(np.stack(frame["vector"]), expected)
    assert frame.drop(columns="vector").to_dict("records") == rows

    frame = pl.read_parquet(tmp_path)
    assert_array_equal(frame["vector"].to_numpy(), expected)
    assert frame.drop("vector").to_dicts() == rows

    relation = duckdb.read_parquet(f"{tmp_path}/*.parquet").order("index")
    assert_array_equal(relation.select("vector").fetchall(), expected[:, None])
    assert relation.select("* exclude (vector)").df().to_dict("records") == rows


# Fields that rows and stamps of the first version lack.
NEW_IN_ROWS = ("source", "bos")
NEW_IN_STAMPS = (
    *("separate_layers", "chat_template_sha256", "chat_template_kwargs"),
    *("add_generation_prompt", "chat_template_date"),
)


def without(record, names):
    return {name: value for name, value in record.items() if name not in names}


def test_earlier_shards_are_still_read(tmp_path):
    write(ShardSink(tmp_path), 0, 1)
    index, vectors = tmp_path / "vectors-00000.jsonl", tmp_path / "vectors-00000.safetensors"
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    old = [without(row, ("shape", *NEW_IN_ROWS)) for row in rows]
    index.write_text("".join(json.dumps(row) + "\n" for row in old))
    stamp = without(STAMP.to_dict(), NEW_IN_STAMPS)
    save_file(load_file(vectors), vectors, metadata={"stamp": json.dumps(stamp)})
    with ShardSink(tmp_path, resume=True) as sink:
        sink.write(make_vector(2))
        assert [(row.index, row.source, row.bos) for row in sink.rows()] == [
            (0, "text", None),
            (1, "text", None),
        ]
    assert [row.index for row in ShardSink(tmp_path, resume=True).rows()] == [0, 1, 2]


def test_earlier_parquet_is_still_read(tmp_path):
    write(ParquetSink(tmp_path), 0)
    path = tmp_path / "part-00000.parquet"
    table = pq.read_table(path)
    metadata = {b"actvec.stamp": json.dumps(without(STAMP.to_dict(), NEW_IN_STAMPS)).encode()}
    table = table.drop_columns(list(NEW_IN_ROWS)).replace_schema_metadata(metadata)
    pq.write_table(table, path)
    with ParquetSink(tmp_path, resume=True) as sink:
        assert [(row.source, row.bos) for row in sink.rows()] == [("text", None)]
        sink.write(make_vector(1))
    assert [row.index for row in ParquetSink(tmp_path, resume=True).rows()] == [0, 1]


@NUMBERED
def test_large_vectors_make_smaller_files(tmp_path, kind, monkeypatch):
    """Memory holds one file: with many layers and pools, 4096 rows would take many gigabytes."""
    monkeypatch.setattr(numbered_files, "_FILE_BYTES", 3 * 4 * 2)
    write(kind(tmp_path), *range(7))
    suffix = "jsonl" if kind is ShardSink else "parquet"
    assert len(list(tmp_path.glob(f"*.{suffix}"))) == 3
    assert [row.index for row in kind(tmp_path, resume=True).rows()] == list(range(7))


@NUMBERED
def test_rows_last_from_the_commit_on(tmp_path, kind):
    sink = kind(tmp_path, rows_per_file=3)
    sink.write(make_vector(0))
    assert list(sink.rows()) == []
    sink.commit()
    assert [row.index for row in sink.rows()] == [0]
    assert sink.committed == 1
    sink.write(make_vector(1))
    sink.commit()
    assert sink.committed == 2
    sink.write(make_vector(2))
    assert [row.index for row in sink.rows()] == [0, 1, 2]
    assert sink.committed == 3


@NUMBERED
def test_resumed_sink_writes_the_same_files(tmp_path, kind):
    write(kind(tmp_path / "once", rows_per_file=3), *range(8))
    write(kind(tmp_path / "often", rows_per_file=3), 0)
    for indices in ([1, 2], [3, 4, 5, 6], [], [7]):
        write(kind(tmp_path / "often", rows_per_file=3, resume=True), *indices)
    assert contents(tmp_path / "often") == contents(tmp_path / "once")


@NUMBERED
def test_folder_with_vectors_is_refused(tmp_path, kind):
    write(kind(tmp_path), 0)
    with pytest.raises(FailedPrecondition, match="holds vectors already"):
        kind(tmp_path)


@NUMBERED
def test_sink_holds_one_stamp(tmp_path, kind):
    other = replace(STAMP, revision="sha256:01")
    for resume in (False, True):
        with kind(tmp_path, resume=resume) as sink:
            sink.write(make_vector(0))
            with pytest.raises(FailedPrecondition, match="revision is 'sha256:00' there"):
                sink.write(make_vector(1, stamp=other))


# Another value for every field of a stamp.
OTHERS = {
    "model": "pythia",
    "revision": "sha256:01",
    "tokenizer_sha256": "12",
    "dtype": "float16",
    "layers": (1, 2),
    "hook": "resid_pre",
    "prepend_bos": False,
    "mode": "short",
    "pools": (Pool("last", 0.0),),
    "truncation": "start",
    "corpus_mean_id": "m",
    "corpus_mean_sha256": "22",
    "actvec_version": "0.2.0",
    "separate_layers": True,
    "chat_template_sha256": "33",
    "chat_template_kwargs": "{}",
    "add_generation_prompt": True,
    "chat_template_date": "2024-07-26",
}


def test_every_field_of_a_stamp_is_tried():
    assert OTHERS.keys() == {field.name for field in fields(Stamp) if field.compare}


@pytest.mark.parametrize("field", OTHERS)
def test_a_sink_refuses_another_stamp(tmp_path, field):
    other = replace(STAMP, **{field: OTHERS[field]})
    for resume in (False, True):
        with ShardSink(tmp_path, resume=resume) as sink:
            sink.write(make_vector(0))
            with pytest.raises(FailedPrecondition, match=f": {field} is .* there and .* here"):
                sink.write(make_vector(1, stamp=other))


@NUMBERED
def test_resumed_sink_refuses_another_dtype(tmp_path, kind):
    write(kind(tmp_path, rows_per_file=2), *range(3))
    with pytest.raises(FailedPrecondition, match="are float16, not float32"):
        kind(tmp_path, rows_per_file=2, dtype="float32", resume=True)
    with pytest.raises(DataLoss, match="2 rows, not 3"):
        list(kind(tmp_path, rows_per_file=3, resume=True).rows())


@NUMBERED
@pytest.mark.parametrize("rows", [0, 2**20 + 1, 10**14])
def test_rows_per_file_have_bounds(tmp_path, kind, rows):
    with pytest.raises(ValueError, match="rows_per_file is at least 1 and at most 1,048,576"):
        kind(tmp_path / "new", rows_per_file=rows)
    assert names(tmp_path) == []


def test_file_beyond_memory_is_refused(tmp_path):
    """A sink allocates one file, with all its rows, at the first vector."""
    program = """
import resource, sys
from actvec.client.bulk import ShardSink
from tests.client.bulk.test_sinks import make_vector
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
ShardSink(sys.argv[1], rows_per_file=2**20).write(make_vector(0, width=20480))
"""
    found = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False
    )
    assert found.stderr.splitlines()[-1] == (
        "actvec.client.errors.ResourceExhausted: a file of 1,048,576 rows of 20,480 float16 numbers"
        " needs 42.9 GB of memory, more than is free; give a smaller rows_per_file"
    )
    assert names(tmp_path) == []


@NUMBERED
def test_unfit_number_spares_the_rows_around_it(tmp_path, kind):
    with kind(tmp_path) as sink:
        sink.write(make_vector(0))
        with pytest.raises(OutOfRange, match="float16 files hold numbers up to 65504"):
            sink.write(make_vector(70_000))
        sink.write(make_vector(1))
    assert [row.index for row in sink.rows()] == [0, 1]


@NUMBERED
def test_damaged_file_is_reported(tmp_path, kind):
    write(kind(tmp_path, rows_per_file=1), *range(3))
    saved = contents(tmp_path)
    for name in saved:
        (tmp_path / name).write_bytes(saved[name][:-7])
        with pytest.raises(DataLoss, match=name.split(".")[0]):
            list(kind(tmp_path, rows_per_file=1, resume=True).rows())
        (tmp_path / name).write_bytes(saved[name])
    for path in tmp_path.glob("*00001*"):
        path.unlink()
    with pytest.raises(DataLoss, match=r"00001\.(jsonl|parquet) is missing.*computed again"):
        kind(tmp_path, rows_per_file=1, resume=True)


def test_vectors_without_an_index_are_written_again(tmp_path):
    write(ShardSink(tmp_path, rows_per_file=2), *range(4))
    expected = contents(tmp_path)
    (tmp_path / "vectors-00001.jsonl").unlink()
    sink = ShardSink(tmp_path, rows_per_file=2, resume=True)
    assert [row.index for row in sink.rows()] == [0, 1]
    write(sink, 2, 3)
    assert contents(tmp_path) == expected


def test_rows_missing_in_the_index_are_written_again(tmp_path):
    """A kill between the two files of a commit."""
    with ShardSink(tmp_path) as sink:
        sink.write(make_vector(0))
        sink.commit()
        index = (tmp_path / "vectors-00000.jsonl").read_bytes()
        sink.write(make_vector(1))
    expected = contents(tmp_path)
    (tmp_path / "vectors-00000.jsonl").write_bytes(index)
    sink = ShardSink(tmp_path, resume=True)
    assert [row.index for row in sink.rows()] == [0]
    write(sink, 1)
    assert contents(tmp_path) == expected


@NUMBERED
def test_failed_commit_can_be_repeated(tmp_path, kind):
    sink = kind(tmp_path)
    sink.write(make_vector(0))
    sink.commit()
    before = contents(tmp_path)
    sink.write(make_vector(1))

    with failing_disk(), pytest.raises(OSError, match="No space"):
        sink.commit()
    assert contents(tmp_path) == before
    sink.commit()
    assert [row.index for row in sink.rows()] == [0, 1]


@NUMBERED
def test_sink_continues_after_a_failed_file(tmp_path, kind):
    """A caller that makes room on the disk loses nothing."""
    sink = kind(tmp_path, rows_per_file=2)
    sink.write(make_vector(0))

    with failing_disk(), pytest.raises(OSError, match="No space"):
        sink.write(make_vector(1))
    with sink:
        sink.write(make_vector(2))
    assert [row.index for row in sink.rows()] == [0, 1, 2]
    assert sink.committed == 3


@pytest.mark.parametrize("kind", [FileSink, ShardSink, ParquetSink])
def test_files_get_ordinary_permissions(tmp_path, kind):
    (tmp_path / "plain").touch()
    write(kind(tmp_path / "out"), 0)
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_file_sink_knows_its_run(tmp_path):
    write(FileSink(tmp_path, run="one"), 0, 1)
    write(FileSink(tmp_path, run="two"), 2)
    assert {row.index for row in FileSink(tmp_path, run="one").rows()} == {0, 1}
    assert list(FileSink(tmp_path).rows()) == []


def test_file_sink_never_replaces_another_text(tmp_path):
    write(FileSink(tmp_path), 0)
    before = contents(tmp_path)
    with FileSink(tmp_path) as sink:
        with pytest.raises(DuplicateNameError, match="another text"):
            sink.write(replace(make_vector(1), id=make_vector(0).id))
        assert contents(tmp_path) == before
        sink.write(make_vector(0))
        assert [row.index for row in sink.rows()] == [0]


def test_files_hold_float32_where_asked_to(tmp_path):
    write(FileSink(tmp_path, dtype="float32"), 70_000)
    (path,) = tmp_path.glob("*.safetensors")
    values = load_file(path)["vec"]
    assert (values.dtype, values[0]) == (np.float32, 70_000)
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["dtype"] == "float32"


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'actvec\[data\]'"):
        ParquetSink(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "csv"}, "format is one of files, shards, parquet, not 'csv'"),
        ({"dtype": "bfloat16"}, "dtype is one of float16, float32"),
        ({"rows_per_file": 0}, "rows_per_file is at least 1"),
        ({"rows_per_file": 10**14}, "and at most 1,048,576, not 100,000,000,000,000"),
    ],
)
def test_unknown_layout_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Layout(**settings)
