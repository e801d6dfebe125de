"""Foreign files: compressed, with other field names, from pipes, truncated."""

import io
import json
import os
import socket
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actvec.client import (
    Document,
    Failure,
    SourceBroken,
    SourceDamaged,
    UnsupportedInput,
)
from actvec.client.documents import Columns, Shard, open_documents
from tests.client.documents.compressing import COMPRESS

DOCUMENTS = [Document("1", "one"), Document("2", "two €")]
LINES = "".join(json.dumps({"text": one.text}) + "\n" for one in DOCUMENTS).encode()
ARCHIVES = [ending for ending in COMPRESS if ending]


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("kind", [".json", ".jsonl", ".ndjson", ".JSON"])
def test_lines_are_read_compressed_or_not(tmp_path, kind, ending):
    path = tmp_path / f"corpus{kind}{ending}"
    path.write_bytes(COMPRESS[ending](LINES))
    source = open_documents(path)
    assert list(source) == list(source) == DOCUMENTS
    assert source.size == path.stat().st_size
    assert source.identity()["sha256"]


@pytest.mark.parametrize("ending", ARCHIVES)
def test_archives_may_have_several_members(tmp_path, ending):
    path = tmp_path / f"corpus.jsonl{ending}"
    path.write_bytes(b"".join(COMPRESS[ending](line) for line in LINES.splitlines(keepends=True)))
    assert list(open_documents(path)) == DOCUMENTS


def test_c4_files_are_read_as_they_are(shared_data):
    paths = sorted((shared_data / "c4-sample").glob("*.json.gz"))
    documents = [document for path in paths for document in open_documents(path)]
    assert len(documents) == 30
    assert not any(isinstance(document, Failure) for document in documents)


@pytest.mark.parametrize("ending", ARCHIVES)
def test_empty_archives_are_damaged(tmp_path, ending):
    path = tmp_path / f"corpus.jsonl{ending}"
    path.write_bytes(b"")
    with pytest.raises(
        SourceDamaged, match=r"line 1: .* the archive is empty.* cut short"
    ) as error:
        list(open_documents(path))
    assert error.value.code == "DATA_LOSS"
    path.write_bytes(COMPRESS[ending](b""))
    assert list(open_documents(path)) == []


@pytest.mark.parametrize("ending", ARCHIVES)
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_cut_archives_are_damaged(tmp_path, ending, cut):
    path = tmp_path / f"corpus.jsonl{ending}"
    path.write_bytes(COMPRESS[ending](LINES * 99)[:-cut])
    with pytest.raises(SourceDamaged, match="make it or fetch it again"):
        list(open_documents(path))


@pytest.mark.parametrize("ending", ARCHIVES)
@pytest.mark.parametrize("size", [1, 200_000])
def test_damaged_stream_behind_others_is_not_the_end(tmp_path, ending, size):
    """Some programs write an archive as many streams; so does `cat` of several archives."""
    path = tmp_path / f"corpus.jsonl{ending}"
    texts = [os.urandom(size).hex() for _ in range(3)]
    streams = [COMPRESS[ending](json.dumps({"text": text}).encode() + b"\n") for text in texts]
    path.write_bytes(b"".join(streams))
    assert [document.text for document in open_documents(path)] == texts
    streams[1] = b"\x01" + streams[1][1:]
    path.write_bytes(b"".join(streams))
    with pytest.raises(SourceDamaged):
        list(open_documents(path))
    path.write_bytes(streams[0] + b"garbage")
    with pytest.raises(SourceDamaged):
        list(open_documents(path))


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2"])
def test_zeros_fill_an_archive_up(tmp_path, ending):
    path = tmp_path / f"corpus.jsonl{ending}"
    parts = [COMPRESS[ending](line) for line in LINES.splitlines(keepends=True)]
    path.write_bytes((b"\0" * 100_000).join([*parts, b""]))
    assert list(open_documents(path)) == DOCUMENTS


@pytest.mark.parametrize("ending", ARCHIVES)
def test_other_bytes_are_damaged_archives(tmp_path, ending):
    path = tmp_path / f"corpus.jsonl{ending}"
    path.write_bytes(LINES)
    with pytest.raises(SourceDamaged, match="line 1: from here on"):
        list(open_documents(path))


def test_a_failing_disk_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(LINES)
    source = open_documents(path)

    class Failing(io.BytesIO):
        def __next__(self):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(source, "_open", Failing)
    with pytest.raises(SourceBroken, match="A disk or a network failed") as error:
        list(source)
    assert error.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("compress", COMPRESS.values(), ids=["plain", *ARCHIVES])
def test_standard_input_is_read_once(monkeypatch, compress):
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(compress(LINES))))
    monkeypatch.setattr(sys, "stdin", stdin)
    source = open_documents("-")
    assert (source.size, source.identity()) == (None, None)
    assert list(source) == DOCUMENTS


@pytest.mark.parametrize("ending", COMPRESS)
def test_named_pipes_are_read_once(tmp_path, ending):
    path = tmp_path / f"corpus.jsonl{ending}"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(COMPRESS[ending](LINES),))
    writer.start()
    source = open_documents(path)
    assert (source.size, source.identity()) == (None, None)
    assert list(source) == DOCUMENTS
    writer.join()


def test_parquet_from_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "corpus.parquet")
    with pytest.raises(UnsupportedInput, match="read from its end"):
        open_documents(tmp_path / "corpus.parquet")


def test_pipes_in_a_folder_fail_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("a.txt")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("b.txt")
        (tmp_path / "c.txt").write_text("fine")
        (tmp_path / "d.txt").symlink_to("/dev/zero")
        pipe, plug, fine, zero = open_documents(tmp_path)
    assert "a.txt is a named pipe, not a file" in pipe.message
    assert "b.txt is a socket" in plug.message
    assert "d.txt is a device" in zero.message
    assert fine == Document("c", "fine")


def written(path, records):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


RECORDS = [{"body": f"text {n}", "uid": n, "id": "same"} for n in range(3)]


@pytest.mark.parametrize("name", ["c.jsonl", "c.parquet"])
def test_other_columns_are_read_by_name(tmp_path, name):
    path = written(tmp_path / name, RECORDS)
    source = open_documents(path, columns=Columns("body", "uid"))
    assert list(source) == [Document(str(n), f"text {n}") for n in range(3)]
    other = open_documents(path, Shard(2, 3), Columns("body", None))
    assert list(other) == [Document("2", "text 1")]
    identities = [source.identity(), open_documents(path, columns=Columns("body")).identity()]
    assert identities[0] != identities[1]


@pytest.mark.parametrize("name", ["c.jsonl", "c.parquet"])
@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (Columns(), "text' or 'messages' or 'token_ids' or 'conversations"),
        (Columns("body", "key"), "key"),
    ],
)
def test_wrong_column_names_stop_at_once(tmp_path, name, columns, missing):
    path = written(tmp_path / name, RECORDS)
    reason = rf"{name}.*: no column '{missing}'; there are: body, uid, id"
    with pytest.raises(UnsupportedInput, match=reason):
        open_documents(path, columns=columns)


def test_wrong_columns_of_a_pipe_stop_early(tmp_path):
    path = tmp_path / "corpus.jsonl"
    os.mkfifo(path)
    lines = json.dumps(RECORDS[0]) + "\n"
    writer = threading.Thread(target=path.write_text, args=(lines * 150,))
    writer.start()
    source, read = open_documents(path), []
    with pytest.raises(UnsupportedInput, match="the first 100 documents: no column 'text'"):
        read.extend(source)
    writer.join()


def test_one_record_with_the_column_is_enough(tmp_path):
    path = written(tmp_path / "c.jsonl", [*RECORDS * 20, {"text": "here"}, *RECORDS])
    documents = list(open_documents(path))
    assert [number for number, one in enumerate(documents) if isinstance(one, Document)] == [60]
    assert "no `text`; there are: body, uid, id" in documents[0].message


@pytest.mark.parametrize("text", ['[{"text": "one"}]', '[\n{"text": "one"}\n]'])
def test_json_arrays_are_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UnsupportedInput, match="one JSON array; write one object per line"):
        open_documents(tmp_path / "c.json")


def test_stream_takes_other_columns(actvec, tmp_path):
    path, out = written(tmp_path / "c.jsonl", RECORDS), tmp_path / "out"
    command = ("stream", path, "--mode=short", "--out", out)
    code, _, errors = actvec(*command, "--column=content")
    assert code == 2
    assert "no column 'content'; there are: body, uid, id" in errors
    assert not out.exists()
    assert actvec(*command, "--column=body", "--id-column=uid")[0] == 0
    rows = [json.loads(one.read_text()) for one in out.glob("*_metadata.json")]
    assert {row["id"] for row in rows} == {"0", "1", "2"}
    code, _, errors = actvec(*command, "--column=body", "--resume")
    assert code == 2
    assert "input columns is" in errors


def test_mean_takes_other_columns(actvec, tmp_path):
    path = written(tmp_path / "c.parquet", RECORDS)
    command = ("mean", "compute", path, "--name=of-a-column", "--json")
    assert actvec(*command)[0] == 2
    code, output, _ = actvec(*command, "--column=body")
    assert (code, json.loads(output)["documents"]) == (0, 3)


def test_standard_input_cannot_be_resumed(actvec, tmp_path, monkeypatch):
    def stream():
        stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(LINES)))
        monkeypatch.setattr(sys, "stdin", stdin)
        return actvec("stream", "-", "--mode=short", "--out", tmp_path / "out", "--resume")

    code, output, errors = stream()
    assert code == 0
    assert "2 vectors" in output
    assert "- can be read only once, so this job cannot be resumed" in errors
    code, _, errors = stream()
    assert code == 2
    assert "its input is a pipe" in errors
