"""A folder that was tampered with, mixed or stamped with other layers is caught."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save

from actvec.client import Client, Document, load
from actvec.client.bulk import FileSink, Layout, ShardSink, VectorJob
from actvec.client.documents import open_documents
from actvec.client.findings import check
from tests.client.findings.conftest import text_of

SHARD = "vectors-00000.safetensors"


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def alter_stamp(folder, **changes):
    """Write a shard's stamp otherwise, with its checksum."""
    path = folder / SHARD
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    stamp = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["stamp"])
    numbers = load_file(path)
    path.write_bytes(save(numbers, metadata={"stamp": json.dumps(stamp | changes)}))
    (folder / "checksums.jsonl").unlink(missing_ok=True)


def test_folder_agrees_with_its_server(client, made, labeled):
    found = check(load(made), open_documents(labeled), client)
    assert found.passed
    assert len(found.rows) == 8
    assert 0 < max(row.error for row in found.rows) < 1e-3
    assert (found.altered, found.stamp) == ({}, "")


def test_altered_number_is_caught_by_the_checksums(client, copy, labeled):
    content = bytearray((copy / SHARD).read_bytes())
    content[-5] ^= 64
    (copy / SHARD).write_bytes(content)
    found = check(load(copy), open_documents(labeled), client, count=1)
    assert not found.passed
    assert found.altered == {copy / SHARD: "was altered: its SHA-256 is another"}


def test_altered_vector_is_caught_by_the_server(client, copy, labeled):
    numbers = load_file(copy / SHARD)["vec"].copy()
    numbers[5] += np.float16(0.1)
    stamp = json.dumps(load(copy).stamp.to_dict())
    (copy / SHARD).write_bytes(save({"vec": numbers}, metadata={"stamp": stamp}))
    (copy / "checksums.jsonl").unlink()
    found = check(load(copy), open_documents(labeled), client, count=24)
    assert [row.id for row in found.rows if not row.agrees] == ["doc-5"]
    assert found.altered == {}


def test_wrong_layer_is_caught(client, copy, labeled):
    alter_stamp(copy, layers=[0, 2])
    found = check(load(copy), open_documents(labeled), client, count=3)
    assert not found.passed
    assert {row.worst.rsplit(" ", 1)[0] for row in found.rows} == {"layer 0"}


def test_altered_single_file_is_caught(client, tmp_path, labeled):
    with FileSink(tmp_path) as sink:
        sink.write(client.extract(text_of(3), mode="short"))
    assert check(load(tmp_path), open_documents(labeled), client).passed
    [path] = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert path in check(load(tmp_path), open_documents(labeled), client).altered


def test_missing_single_file_is_caught(client, tmp_path, labeled):
    with FileSink(tmp_path) as sink:
        for number in (3, 4):
            sink.write(client.extract(Document(f"doc-{number}", text_of(number)), mode="short"))
    one, other = sorted(tmp_path.glob("*.safetensors"))
    other.unlink()
    found = check(load(one), open_documents(labeled), client)
    assert found.altered == {other: "is missing"}


def test_altered_parquet_is_caught_without_its_folder(client, tmp_path, labeled):
    job = VectorJob(open_documents(labeled), tmp_path, mode="short", layout=Layout("parquet"))
    job.run(client)
    [path] = tmp_path.glob("vectors.parquet/*.parquet")
    pq.write_table(pq.read_table(path), path, compression="zstd")
    for named in (tmp_path, path.parent, path):
        found = check(load(named), open_documents(labeled), client, count=1)
        assert list(found.altered) == [path], named


def test_kept_column_hides_no_digest(client, tmp_path, labeled):
    """A corpus may have a `text_sha256` of its own, of another text or in other letters."""
    columns = {"text_sha256": "of the page that it was taken from"}
    with ShardSink(tmp_path) as sink:
        sink.write(client.extract(Document("doc-3", text_of(3), columns=columns), mode="short"))
    assert check(load(tmp_path), open_documents(labeled), client).passed


def test_changed_text_is_caught(client, made, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "doc-0", "text": "Another text."}) + "\n")
    found = check(load(made), open_documents(corpus), client, count=2)
    assert {row.reason for row in found.rows} == {"its text is not in the corpus any more"}
    assert not found.passed


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"revision": "sha256:0"}, "revision is 'sha256:0' there"),
        ({"layers": [1, 99]}, "layers is [99] there and 'not on offer' here"),
        ({"hook": "resid_mid"}, "hook is 'resid_mid' there and 'not on offer' here"),
    ],
)
def test_server_of_another_stamp_is_told(actvec, copy, labeled, changes, field):
    alter_stamp(copy, **changes)
    code, output, _ = actvec("check", copy, labeled)
    assert code == 1
    assert field in output
    layers = ",".join(map(str, changes.get("layers", [1, 2])))
    hook = changes.get("hook", "resid_post")
    expected = f"actvec-server --model demo --dtype float32 --layers {layers} --hook {hook}"
    assert f"This stamp needs: {expected}" in output


def test_named_server_makes_the_vectors(actvec, start_server, made, labeled):
    """What `check` says to start, started."""
    answer = json.loads(actvec("check", made, labeled, "--json")[1])
    program, *options = answer["server"].split()
    assert program == "actvec-server"
    server = start_server(*options)
    with Client(server.target) as client:
        assert check(load(made), open_documents(labeled), client).passed


def test_command_knows_the_corpus(actvec, made):
    code, output, errors = actvec("check", made, "--rows", 3)
    assert (code, errors) == (0, "")
    assert "3 of 3 vectors agree" in output
    assert output.count("agrees") == 3


def test_command_asks_for_a_corpus(actvec, copy):
    (copy / "manifest.json").unlink()
    code, _, errors = actvec("check", copy)
    assert code == 2
    assert "names no corpus; give INPUT" in errors


def test_mixed_folder_is_refused(actvec, copy, labeled):
    for suffix in ("safetensors", "jsonl"):
        shutil.copy(copy / f"vectors-00000.{suffix}", copy / f"vectors-00001.{suffix}")
    alter_stamp(copy, dtype="bfloat16")
    code, _, errors = actvec("check", copy, labeled)
    assert code == 2
    assert "dtype is 'bfloat16' there and 'float32' here" in errors
