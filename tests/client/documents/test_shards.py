"""Shards of a corpus: together they hold each document once, and give the results of the whole."""

import gzip
import json
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.client import (
    Client,
    CorpusChanged,
    FailedPrecondition,
    InvalidArgument,
    SourceBroken,
)
from actvec.client.bulk import Layout, VectorJob
from actvec.client.cli import main
from actvec.client.documents import Shard, open_documents

TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1725)]


def shards_of(path, count):
    return [open_documents(path, Shard(number, count)) for number in range(1, count + 1)]


def lines(tmp_path):
    records = [json.dumps({"id": f"doc-{i}", "text": text}) for i, text in enumerate(TEXTS)]
    # An unreadable line is a document too, and belongs to one shard.
    records[7] = "not JSON"
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(records))
    return path


def parquet(tmp_path):
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": TEXTS}), path, row_group_size=4)
    return path


def folder(tmp_path):
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number:02}.txt").write_text(text)
    return tmp_path


@given(count=st.integers(1, 40), documents=st.integers(0, 100))
def test_each_number_is_in_exactly_one_shard(count, documents):
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for index in range(documents):
        assert sum(shard.has(index) for shard in shards) == 1


@pytest.mark.parametrize("write", [lines, parquet, folder])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_shards_partition_a_source(tmp_path, write, count):
    path = write(tmp_path)
    whole = list(open_documents(path).scan())
    shards = shards_of(path, count)
    parts = [located for shard in shards for located in shard.scan()]
    assert sorted(parts, key=lambda located: located.index) == whole
    lengths = [len(list(shard)) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    known = [shard.count for shard in shards]
    assert known in (lengths, count * [None])


def scanned(source, done):
    """The documents of a scan, and how it broke; None if it reached the end."""
    read, documents = [], source.scan(done)
    try:
        while True:
            read.append(next(documents))
    except StopIteration:
        return read, None
    except SourceBroken as broken:
        return read, str(broken)


@settings(deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(['{"text": "a"}', '{"id": 7, "text": "b"}', "", " ", "rubbish"])
    ),
    count=st.integers(1, 9),
    done=st.sets(st.integers(0, 30)),
    cut=st.integers(0, 20),
)
def test_any_lines_are_shared_out_once(lines, count, done, cut):
    """With blank lines, lines that are not documents, and a truncated archive."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl.gz")
        data = gzip.compress("\n".join(lines).encode())
        path.write_bytes(data[: len(data) - cut])
        whole, broken = scanned(open_documents(path), done)
        parts = [scanned(shard, done) for shard in shards_of(path, count)]
    shared = [located for part, _ in parts for located in part]
    assert sorted(shared, key=lambda located: located.index) == whole
    assert all(end == broken for _, end in parts)


def test_truncated_archive_breaks_every_shard(tmp_path):
    path = tmp_path / "corpus.jsonl.gz"
    texts = "".join(json.dumps({"text": f"{n} {hash(n * 7919)}"}) + "\n" for n in range(9999))
    path.write_bytes(gzip.compress(texts.encode())[:-2000])
    for shard in shards_of(path, 3):
        with pytest.raises(SourceBroken, match="from here on the file cannot be read"):
            list(shard)


def test_pipe_is_read_once(tmp_path):
    path = tmp_path / "corpus.jsonl"
    os.mkfifo(path)
    text = "".join(json.dumps({"id": f"doc-{n}", "text": "A text."}) + "\n" for n in range(7))
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    source = open_documents(path, Shard(2, 3))
    assert (source.identity(), source.size) == (None, None)
    assert [document.id for document in source] == ["doc-1", "doc-4"]
    writer.join()


def test_resumed_shard_skips_done_documents(tmp_path):
    shard = open_documents(folder(tmp_path), Shard(2, 3))
    assert [located.index for located in shard.scan(skip={1, 4, 7})] == [10, 13, 16, 19, 22]


def test_shards_have_distinct_identities(tmp_path):
    path = lines(tmp_path)
    sources = [open_documents(path), *shards_of(path, 2), *shards_of(path, 3)]
    identities = [json.dumps(source.identity()) for source in sources]
    assert len(set(identities)) == len(sources)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "4", "a/b", "-1/4", "1/4/2"])
def test_malformed_shard_is_refused(text, capsys, tmp_path):
    with pytest.raises(InvalidArgument, match="write I/N"):
        Shard.parse(text)
    with pytest.raises(SystemExit) as ending:
        main(["mean", "compute", str(tmp_path), "--name=m", f"--shard={text}"])
    assert ending.value.code == 2
    assert "write I/N" in capsys.readouterr().err


def test_vectors_of_shards_are_those_of_the_whole(tmp_path, demo_server):
    path = lines(tmp_path)

    def run(source, name):
        with Client(demo_server.target) as client:
            VectorJob(source, tmp_path / name, mode="short", layout=Layout("shards")).run(client)
        (index,) = (tmp_path / name).glob("vectors-*.jsonl")
        vectors = load(index.with_suffix(".safetensors").read_bytes())["vec"]
        rows = map(json.loads, index.read_text().splitlines())
        return {row["index"]: (row["id"], vectors[row["row"]]) for row in rows}

    whole = run(open_documents(path), "whole")
    parts = {}
    for number, shard in enumerate(shards_of(path, 3)):
        parts |= run(shard, f"part-{number}")
    assert parts.keys() == whole.keys() == set(range(25)) - {7}
    for index, (document, vector) in whole.items():
        assert parts[index][0] == document
        assert np.array_equal(parts[index][1], vector)


def test_job_does_not_resume_with_another_shard(tmp_path, demo_server):
    path = lines(tmp_path)
    with Client(demo_server.target) as client:
        for shard in (Shard(1, 2), Shard(2, 2)):
            job = VectorJob(
                open_documents(path, shard), tmp_path / "out", mode="short", resume=True
            )
            if shard.number == 1:
                job.run(client)
            else:
                with pytest.raises(FailedPrecondition, match="shard"):
                    job.run(client)


def test_program_resumes_only_its_shard(tmp_path, demo_server, program):
    path, out = lines(tmp_path), tmp_path / "out"
    command = ["stream", path, "--mode=short", "--out", out, "--target", demo_server.target]
    code, _, _ = program(*command, "--shard=2/3")
    assert code == 1  # the line that is not a document is in this shard
    rows = [json.loads(file.read_text()) for file in out.glob("*_metadata.json")]
    assert sorted(row["index"] for row in rows) == [i for i in range(1, 25, 3) if i != 7]
    assert {row["id"] for row in rows} == {f"doc-{row['index']}" for row in rows}
    code, output, _ = program(*command, "--shard=2/3", "--resume", "--json")
    assert json.loads(output)["resumed"] == 8
    for other, here in ((["--shard=1/3"], "'1/3'"), ([], "None")):
        code, _, errors = program(*command, *other, "--resume")
        assert code == 2
        assert f"input shard is '2/3' there and {here} here" in errors


def test_mean_does_not_resume_with_another_shard(tmp_path, demo_server):
    path = folder(tmp_path)

    def interrupted(documents):
        yield from documents
        raise KeyError("the client broke here")

    with Client(demo_server.target) as client:
        with pytest.raises(KeyError):
            client.corpus_mean(interrupted(open_documents(path, Shard(1, 3))), job="a-shard")
        for other in (Shard(2, 3), None):
            with pytest.raises(CorpusChanged, match="job a-shard has 9 documents already"):
                client.corpus_mean(open_documents(path, other), job="a-shard")
        assert client.corpus_mean(open_documents(path, Shard(1, 3)), job="a-shard").documents == 9


@pytest.mark.parametrize("count", [2, 5])
def test_means_of_shards_merge_to_the_whole(tmp_path, demo_server, count, request):
    path, name = lines(tmp_path), request.node.callspec.id
    with Client(demo_server.target) as client:
        whole = client.corpus_mean(open_documents(path), job=f"whole-{name}")
        parts = [
            client.corpus_mean(shard, job=f"part-{number}-of-{name}").id
            for number, shard in enumerate(shards_of(path, count))
        ]
        merged = client.merge_means(parts, name=f"merged-{name}")
        assert (merged.documents, merged.tokens) == (24, whole.tokens)
        assert merged.skipped_documents == whole.skipped_documents == 1
        expected = load(client.download_mean(whole.id).content)["sums"]
        assert_allclose(load(client.download_mean(merged.id).content)["sums"], expected, 1e-12)
