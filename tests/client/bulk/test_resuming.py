"""Resumed jobs keep finished vectors, and refuse to mix in others."""

import asyncio
import gzip
import json

import pytest

from actvec.client import (
    AsyncClient,
    Client,
    FailedPrecondition,
    StampChanged,
)
from actvec.client.errors import DataLoss, ServerUnavailable
from tests.client.bulk.jobs import (
    BLANK,
    COUNT,
    FORMATS,
    StopHereError,
    failures_of,
    job,
    manifest_of,
    stop_after,
    text_of,
)
from tests.client.bulk.saved import read_back


@pytest.mark.parametrize("layout", FORMATS)
def test_resumed_job_computes_only_missing_vectors(
    client, corpus, tmp_path, check_complete, layout
):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out, layout).run(client, on_progress=stop_after(25))
    assert manifest_of(out)["finished_at"] is None
    progress = job(corpus, out, layout, resume=True).run(client)
    assert progress.resumed_vectors + progress.resumed_failed == 25
    assert progress.durable == progress.vectors == COUNT - len(BLANK)
    check_complete(out, layout)


async def test_cancelled_job_keeps_its_vectors(demo_server, corpus, tmp_path, check_complete):
    out, some = tmp_path / "out", asyncio.Event()
    async with AsyncClient(demo_server.target) as client:
        running = asyncio.create_task(
            job(corpus, out).run_async(client, window=4, on_progress=lambda _: some.set())
        )
        await some.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert 0 < manifest_of(out)["vectors"] + manifest_of(out)["failed"] < COUNT
        await job(corpus, out, resume=True).run_async(client)
    check_complete(out)


def test_resuming_where_there_is_nothing_begins(client, corpus, tmp_path, check_complete):
    job(corpus, tmp_path / "out", resume=True).run(client)
    check_complete(tmp_path / "out")


def test_resuming_a_finished_job_needs_no_server(client, corpus, tmp_path):
    done = job(corpus, tmp_path / "out").run(client)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with Client("127.0.0.1:1") as nobody:
        again = job(corpus, tmp_path / "out", resume=True).run(nobody)
    assert (again.vectors, again.failed, again.tokens) == (done.vectors, done.failed, done.tokens)
    after = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after == before


def test_lost_vectors_are_computed_again(client, corpus, tmp_path, check_complete):
    out = tmp_path / "out"
    job(corpus, out, "files").run(client)
    (out / "activation_vector_short_doc-7_metadata.json").unlink()
    job(corpus, out, "files", resume=True).run(client)
    check_complete(out, "files")


@pytest.mark.parametrize("layout", FORMATS)
def test_folder_with_a_job_is_refused_without_resume(client, corpus, tmp_path, layout):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out, layout).run(client, on_progress=stop_after(5))
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    with pytest.raises(FailedPrecondition, match="holds a job that is not finished; resume it"):
        job(corpus, out, layout).run(client)
    assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "long"}, "mode is 'short' there and 'long' here"),
        ({"truncation": "end"}, "truncation is 'error' there and 'end' here"),
        ({"prepend_bos": False}, "prepend_bos is None there and False here"),
        ({"ordered": True}, "ordered is False there and True here"),
        ({"center": "latest"}, "center is None there and 'latest' here"),
        ({"layout": "parquet"}, "format is 'shards' there and 'parquet' here"),
        ({"rows_per_file": 17}, "rows_per_file is 16 there and 17 here"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_job_is_not_resumed_with_other_settings(client, corpus, tmp_path, settings, reason):
    job(corpus, tmp_path / "out").run(client)
    with pytest.raises(FailedPrecondition, match=reason):
        job(corpus, tmp_path / "out", resume=True, **settings).run(client)


def test_job_is_not_resumed_with_another_input(client, corpus, tmp_path):
    job(corpus, tmp_path / "out").run(client)
    corpus.write_text(corpus.read_text().replace("bridge", "garden"))
    with pytest.raises(FailedPrecondition, match="input sha256 is"):
        job(corpus, tmp_path / "out", resume=True).run(client)


def test_job_is_resumed_with_a_moved_input(client, corpus, tmp_path):
    job(corpus, tmp_path / "out").run(client)
    moved = corpus.rename(tmp_path / "moved.jsonl")
    assert job(moved, tmp_path / "out", resume=True).run(client).vectors == COUNT - len(BLANK)


def test_job_is_not_resumed_with_changed_files(client, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("One text.")
    (texts / "b.txt").write_text("Another text.")
    job(texts, tmp_path / "out").run(client)
    assert job(texts, tmp_path / "out", resume=True).run(client).vectors == 2
    (texts / "c.txt").write_text("A third one.")
    with pytest.raises(FailedPrecondition, match="input files is 2 there and 3 here"):
        job(texts, tmp_path / "out", resume=True).run(client)


def test_job_is_not_resumed_by_another_model(client, corpus, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out).run(client, on_progress=stop_after(20))
    manifest = manifest_of(out)
    stamp = manifest["stamp"]
    # The client asks the server for the mean of the job's start, and it has none with that id.
    assert stamp.pop("corpus_mean_id") == ""
    for field in stamp:
        other = manifest | {"stamp": stamp | {field: "another", "corpus_mean_id": ""}}
        (out / "manifest.json").write_text(json.dumps(other))
        with pytest.raises(StampChanged, match=rf": {field} is 'another' there and \S+ .*here\."):
            job(corpus, out, resume=True).run(client)
        assert manifest_of(out)["vectors"] == manifest["vectors"]


@pytest.fixture
def make_mean(client):
    """Make a corpus mean that is deleted after the test."""
    made = []

    def make(texts):
        made.append(client.corpus_mean(texts, job=f"bulk-{len(made)}").id)
        return made[-1]

    yield make
    for mean in made:
        client.delete_mean(mean)


def test_resumed_job_keeps_its_latest_mean(client, corpus, tmp_path, make_mean):
    out, texts = tmp_path / "out", [text_of(n) for n in range(COUNT) if n not in BLANK]
    first = make_mean(texts)
    with pytest.raises(StopHereError):
        job(corpus, out, "files", center="latest").run(client, on_progress=stop_after(20))
    assert make_mean(texts[1:]) != first
    job(corpus, out, "files", center="latest", resume=True).run(client)
    records = [json.loads(path.read_text()) for path in out.glob("*_metadata.json")]
    assert len(records) == len(texts)
    assert {record["stamp"]["corpus_mean_id"] for record in records} == {first}
    assert all(record["smallest_count"] > 0 for record in records)


def test_resumed_job_counts_documents_longer_than_the_mean(
    program, demo_server, corpus, tmp_path, make_mean
):
    arguments = (
        *("stream", corpus, "--mode=short", "--out", tmp_path / "out", "--resume"),
        *("--center", make_mean(["A text."]), "--target", demo_server.target),
    )
    for _ in range(2):
        _, _, errors = program(*arguments)
        assert "Longer than the corpus mean, so centered over their last tokens only" in errors
        assert "57 of 57 documents" in errors
    _, output, _ = program(*arguments, "--json")
    assert json.loads(output)["shortened"] == COUNT - len(BLANK)


def test_job_without_a_server_can_be_resumed(client, corpus, tmp_path, check_complete):
    with Client("127.0.0.1:1") as nobody, pytest.raises(ServerUnavailable):
        job(corpus, tmp_path / "out").run(nobody)
    job(corpus, tmp_path / "out", resume=True).run(client)
    check_complete(tmp_path / "out")


def test_empty_job_holds_no_folder(client, corpus, tmp_path, check_complete):
    with Client("127.0.0.1:1") as nobody, pytest.raises(ServerUnavailable):
        job(corpus, tmp_path / "out", mode="long").run(nobody)
    job(corpus, tmp_path / "out").run(client)
    check_complete(tmp_path / "out")


def test_failures_without_a_vector_hold_no_folder(client, tmp_path):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    corpus.write_text('not JSON\n{"id": "a", "text": "The bridge was closed."}\n')
    with pytest.raises(StopHereError):
        job(corpus, out, mode="long", ordered=True).run(client, on_progress=stop_after(1))
    assert [failure["id"] for failure in failures_of(out)] == ["1"]
    progress = job(corpus, out).run(client)
    assert (progress.vectors, progress.failed) == (1, 1)
    assert [failure["id"] for failure in failures_of(out)] == ["1"]


def test_order_is_kept_on_disk(client, corpus, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out, ordered=True).run(client, on_progress=stop_after(30))
    job(corpus, out, ordered=True, resume=True).run(client)
    indices = [vector.index for vector in read_back(out, "shards")]
    assert indices == [number for number in range(COUNT) if number not in BLANK]


def test_half_written_files_are_removed(client, corpus, tmp_path, check_complete):
    """A killed process leaves them, beside the manifest or the tables."""
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out, "parquet").run(client, on_progress=stop_after(20))
    left = [out / ".actvec-00.tmp", out / "vectors.parquet" / ".actvec-11.tmp"]
    for path in left:
        path.write_bytes(b"half")
    job(corpus, out, "parquet", resume=True).run(client)
    assert not any(path.exists() for path in left)
    check_complete(out, "parquet")


def test_half_written_error_line_is_mended(client, corpus, tmp_path, check_complete):
    out = tmp_path / "out"
    job(corpus, out).run(client)
    errors = (out / "errors.jsonl").read_bytes()
    for cut in (1, 30, len(errors.splitlines()[0]) + 2, len(errors)):
        (out / "errors.jsonl").write_bytes(errors[:-cut])
        job(corpus, out, resume=True).run(client)
        check_complete(out)


def test_resumed_job_keeps_repeated_ids(client, tmp_path):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    lines = [{"id": f"same-{n % 10}", "text": text_of(n + 1)} for n in range(19)]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(StopHereError):
        job(corpus, out, "files", ordered=True).run(client, on_progress=stop_after(14))
    progress = job(corpus, out, "files", ordered=True, resume=True).run(client)
    assert (progress.vectors, progress.failed, progress.repeated_ids) == (19, 0, 9)
    found = {vector.index: vector.id for vector in read_back(out, "files")}
    assert found == {number: f"same-{number % 10}" for number in range(19)}
    assert failures_of(out) == []


def retry_a_failure(out):
    """Let a failure of a finished job be one that may have passed."""
    errors = (out / "errors.jsonl").read_text()
    (out / "errors.jsonl").write_text(errors.replace("INVALID_ARGUMENT", "UNAVAILABLE", 1))


def lose_a_vector(out):
    (out / "activation_vector_short_doc-7_metadata.json").unlink()


@pytest.mark.parametrize("left", [retry_a_failure, lose_a_vector])
def test_broken_resumption_leaves_its_documents(client, corpus, tmp_path, check_complete, left):
    """A finished job that has documents to compute again is no finished job any more."""
    out = tmp_path / "out"
    job(corpus, out, "files").run(client)
    left(out)
    with Client("127.0.0.1:1") as nobody, pytest.raises(ServerUnavailable):
        job(corpus, out, "files", resume=True).run(nobody)
    job(corpus, out, "files", resume=True).run(client)
    check_complete(out, "files")


@pytest.mark.parametrize("left", [retry_a_failure, lose_a_vector])
def test_resumption_is_recorded_before_its_first_document(client, corpus, tmp_path, left):
    """A kill at any time leaves a job that is not finished."""
    out, told = tmp_path / "out", []
    job(corpus, out, "files").run(client)
    left(out)
    resumed = job(corpus, out, "files", resume=True, save_every=3600)
    resumed.run(client, on_progress=lambda _: told.append(manifest_of(out)["finished_at"]))
    assert told[0] is None
    assert told[-1] is not None


def test_template_arguments_may_be_tuples(client, corpus, tmp_path, check_complete):
    """The manifest has them as JSON, which has lists only."""
    out, settings = tmp_path / "out", {"chat_template_kwargs": {"tools": ("one", "two")}}
    with pytest.raises(StopHereError):
        job(corpus, out, **settings).run(client, on_progress=stop_after(20))
    job(corpus, out, resume=True, **settings).run(client)
    check_complete(out)


def test_damage_is_reported_not_gone_on_with(client, corpus, tmp_path):
    out = tmp_path / "out"
    job(corpus, out).run(client)
    errors = (out / "errors.jsonl").read_text()
    for path, content, message in (
        (out / "errors.jsonl", f"nonsense\n{errors}", "errors.jsonl, line 1"),
        (out / "errors.jsonl", errors + errors, "is in .* twice"),
        (out / "manifest.json", "{", r"manifest.json is not what was written"),
        (out / "manifest.json", "[]", r"manifest.json is not what was written"),
    ):
        before = path.read_text()
        path.write_text(content)
        with pytest.raises(DataLoss, match=message):
            job(corpus, out, resume=True).run(client)
        path.write_text(before)
    (out / "manifest.json").write_text('{"version": 2}')
    with pytest.raises(FailedPrecondition, match="is of version 2, and this actvec knows 1"):
        job(corpus, out, resume=True).run(client)


def test_resumed_job_estimates_from_its_own_work(client, corpus, tmp_path):
    out, told = tmp_path / "out", []
    with pytest.raises(StopHereError):
        job(corpus, out, ordered=True).run(client, on_progress=stop_after(50))
    job(corpus, out, ordered=True, resume=True).run(client, on_progress=told.append)
    first = told[0]
    assert first.documents == 51
    assert first.fraction > 0.8
    assert first.resumed_bytes == first.done_bytes
    assert first.documents_per_second * first.seconds == pytest.approx(1)


def test_compressed_lines_are_a_source_as_well(client, corpus, tmp_path, check_complete):
    compressed = tmp_path / "corpus.jsonl.gz"
    compressed.write_bytes(gzip.compress(corpus.read_bytes()))
    with pytest.raises(StopHereError):
        job(compressed, tmp_path / "out").run(client, on_progress=stop_after(25))
    job(compressed, tmp_path / "out", resume=True).run(client)
    check_complete(tmp_path / "out")
