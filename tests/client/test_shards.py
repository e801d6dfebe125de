"""Parts of a corpus: together they are each document once, and what they make is what it makes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.client import Client, FailedPrecondition, InvalidArgument
from actvec.client.bulk import Layout, VectorJob
from actvec.client.cli import main
from actvec.client.documents import Shard, open_documents

TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1725)]


def shards_of(path, count):
    return [open_documents(path, Shard(number, count)) for number in range(1, count + 1)]


def lines(tmp_path):
    records = [json.dumps({"id": f"doc-{i}", "text": text}) for i, text in enumerate(TEXTS)]
    # A line that cannot be read is a document too, and belongs to one shard.
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
def test_the_shards_of_a_source_are_its_documents_with_their_numbers_and_ids(
    tmp_path, write, count
):
    path = write(tmp_path)
    whole = list(open_documents(path).scan())
    shards = shards_of(path, count)
    parts = [located for shard in shards for located in shard.scan()]
    assert sorted(parts, key=lambda located: located.index) == whole
    lengths = [len(list(shard)) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    known = [shard.count for shard in shards]
    assert known in (lengths, count * [None])


def test_a_shard_is_scanned_on_behind_what_is_done(tmp_path):
    shard = open_documents(folder(tmp_path), Shard(2, 3))
    assert [located.index for located in shard.scan(skip={1, 4, 7})] == [10, 13, 16, 19, 22]


def test_shards_are_told_from_each_other_and_from_the_whole(tmp_path):
    path = lines(tmp_path)
    sources = [open_documents(path), *shards_of(path, 2), *shards_of(path, 3)]
    identities = [json.dumps(source.identity()) for source in sources]
    assert len(set(identities)) == len(sources)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "4", "a/b", "-1/4", "1/4/2"])
def test_what_is_no_shard_is_refused_with_an_example(text, capsys, tmp_path):
    with pytest.raises(InvalidArgument, match="write I/N"):
        Shard.parse(text)
    with pytest.raises(SystemExit) as ending:
        main(["mean", "compute", str(tmp_path), "--name=m", f"--shard={text}"])
    assert ending.value.code == 2
    assert "write I/N" in capsys.readouterr().err


def test_the_vectors_of_the_shards_are_those_of_the_whole(tmp_path, demo_server):
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


def test_a_job_begun_with_one_shard_does_not_go_on_with_another(tmp_path, demo_server):
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


@pytest.mark.parametrize("count", [2, 5])
def test_the_means_of_the_shards_merge_to_the_mean_of_the_whole(
    tmp_path, demo_server, count, request
):
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
