"""The order in which a job's files reach the disk, and the remains of a kill between two steps."""

import pytest

from actvec.client import Failure
from actvec.client.bulk import FileSink, ParquetSink, ShardSink
from actvec.client.bulk.checksums import Checksums
from actvec.client.bulk.failures import ErrorLog
from tests.client.bulk.jobs import FORMATS, job
from tests.client.bulk.test_sinks import make_vector
from tests.disk import Operation, recorded, remains, written_whole

NUMBERED = pytest.mark.parametrize("kind", [ShardSink, ParquetSink])
NAMES = {
    ShardSink: ["vectors-00000.safetensors", "vectors-00000.jsonl"],
    ParquetSink: ["part-00000.parquet"],
}


def opened(kind, folder, *, resume=False):
    """A sink with three rows per file that keeps checksums."""
    folder.mkdir(exist_ok=True)
    checksums = Checksums(folder / "checksums.jsonl")
    return kind(folder, rows_per_file=3, resume=resume, checksums=checksums)


def kinds(operations):
    return [(operation.kind, operation.name) for operation in operations]


@NUMBERED
def test_checksum_is_durable_before_its_file(tmp_path, kind):
    sink = opened(kind, tmp_path / "out")
    sink.write(make_vector(0))
    with recorded() as operations:
        sink.commit()
    checksum, folder = ("fsync", "checksums.jsonl"), ("fsync folder", "out")
    expected = []
    for name in NAMES[kind]:
        # The new name of the checksums must be durable too; once.
        expected += [checksum, *([] if expected else [folder])]
        expected += kinds(written_whole(name, 0))
    assert kinds(operations) == [*expected, folder]
    sizes = {name: (tmp_path / "out" / name).stat().st_size for name in NAMES[kind]}
    renamed = {one.name: one.size for one in operations if one.kind == "rename"}
    assert renamed == sizes


def test_vector_is_durable_before_its_metadata(tmp_path):
    sink = FileSink(tmp_path)
    with recorded() as operations:
        sink.write(make_vector(0))
        sink.commit()
    (vector,) = tmp_path.glob("*.safetensors")
    (metadata,) = tmp_path.glob("*.json")
    assert operations == [
        *written_whole(vector.name, vector.stat().st_size),
        *written_whole(metadata.name, metadata.stat().st_size),
        Operation("fsync folder", tmp_path.name),
    ]


def test_failures_are_durable_from_the_commit_on(tmp_path):
    errors = ErrorLog(tmp_path / "errors.jsonl", resume=False)
    with recorded() as operations:
        for index in range(2):
            errors.write(Failure("id", "INVALID_ARGUMENT", "blank", index=index))
            errors.commit()
    half = errors.path.stat().st_size // 2
    assert operations == [
        Operation("fsync", "errors.jsonl", half),
        Operation("fsync folder", tmp_path.name),
        Operation("fsync", "errors.jsonl", 2 * half),
    ]


@pytest.mark.parametrize("layout", FORMATS)
def test_manifest_says_what_is_durable(client, corpus, tmp_path, layout):
    """Vectors and failures are durable before the manifest counts them, then it is too."""
    with recorded() as operations:
        job(corpus, tmp_path / "out", layout).run(client)
    steps = kinds(operations)
    folder = ("fsync folder", "out")
    # The last save belongs to the closing of the finished job, and changes nothing.
    last = len(steps) - 1 - steps[::-1].index(("rename", "manifest.json"))
    assert steps[last:] == [("rename", "manifest.json"), folder]
    first = steps.index(("rename", "manifest.json"))
    assert steps.index(("fsync folder", tmp_path.name)) < first
    counted = max(
        at
        for at, (kind, name) in enumerate(steps)
        if kind == "rename" and name not in {"manifest.json", "checksums.jsonl"}
    )
    place = "vectors.parquet" if layout == "parquet" else "out"
    saved = steps[counted:]
    assert saved.index(("fsync folder", place)) < saved.index(("rename", "manifest.json"))
    assert saved.index(("fsync", "errors.jsonl")) < saved.index(("rename", "manifest.json"))


@NUMBERED
def test_killed_sink_stands_before_or_after(tmp_path, kind):
    folder = tmp_path / "out"
    with opened(kind, folder) as sink:
        sink.write(make_vector(0))

    def write_more():
        sink = opened(kind, folder, resume=True)
        sink.write(make_vector(1))
        sink.commit()

    found = []
    for left in remains(write_more, folder, tmp_path / "left"):
        rows = [row.index for row in opened(kind, left, resume=True).rows()]
        assert rows in ([0], [0, 1])
        found.append(len(rows))
    # It is there from one moment on.
    assert set(found) == {1, 2}
    assert found == sorted(found)
