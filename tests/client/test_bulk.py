"""Jobs: a corpus into a folder, each document once, and refused where it would be mixed up."""

import asyncio
import gzip
import json
import os
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from actvec.client import AsyncClient, Client, FailedPrecondition, StampChanged, Vector
from actvec.client.bulk import Layout, VectorJob
from actvec.client.documents import open_documents
from actvec.client.errors import Aborted, DataLoss, ServerUnavailable
from actvec.client.lock import locked

from .saved import read_back

FORMATS = ("files", "shards", "parquet")
COUNT = 60
BLANK = range(0, COUNT, 20)


def text_of(number):
    return " " if number in BLANK else f"In {1700 + number} the bridge was closed for repairs."


def write_corpus(path, numbers=range(COUNT)):
    lines = [json.dumps({"id": f"doc-{n}", "text": text_of(n)}) + "\n" for n in numbers]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl")


@pytest.fixture(scope="module")
def expected(demo_server):
    """The vectors of the corpus, each computed on its own account: index -> float16 `[D]`."""
    with Client(demo_server.target) as client:
        results = client.stream([text_of(number) for number in range(COUNT)], mode="short")
        return {r.index: r.values.astype(np.float16) for r in results if isinstance(r, Vector)}


def job(corpus, folder, layout="shards", rows_per_file=16, **settings):
    layout = Layout(layout, rows_per_file=rows_per_file)
    return VectorJob(
        open_documents(corpus), folder, **({"mode": "short"} | settings), layout=layout
    )


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def failures_of(folder):
    path = folder / "errors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def check_complete(expected):
    """Holds a folder to the corpus: each document once, its vector or its failure."""

    def check(folder, layout="shards"):
        saved = read_back(folder, layout)
        assert sorted(vector.index for vector in saved) == sorted(expected)
        for vector in saved:
            assert vector.id == f"doc-{vector.index}"
            assert_array_equal(vector.values, expected[vector.index])
        assert sorted(failure["index"] for failure in failures_of(folder)) == list(BLANK)
        assert not list(folder.rglob("*.tmp"))

    return check


@pytest.mark.parametrize("layout", FORMATS)
def test_a_job_leaves_each_document_once_a_manifest_and_the_errors(
    client, corpus, tmp_path, check_complete, layout
):
    told = []
    progress = job(corpus, tmp_path / "out", layout).run(client, on_progress=told.append)
    check_complete(tmp_path / "out", layout)
    assert (progress.vectors, progress.failed) == (COUNT - len(BLANK), len(BLANK))
    manifest = manifest_of(tmp_path / "out")
    assert manifest["settings"]["mode"] == "short"
    assert manifest["settings"]["format"] == layout
    assert manifest["stamp"]["model"] == "demo"
    assert manifest["input"]["bytes"] == corpus.stat().st_size
    assert manifest["finished_at"] is not None
    assert (manifest["vectors"], manifest["failed"]) == (COUNT - len(BLANK), len(BLANK))
    assert manifest["tokens"] == progress.tokens > 0
    assert [step.documents for step in told] == [*range(1, COUNT + 1), COUNT]
    fractions = [step.fraction for step in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert told[-1].seconds_left == 0


@pytest.mark.parametrize("layout", FORMATS)
async def test_the_asynchronous_client_does_the_same(
    demo_server, corpus, tmp_path, check_complete, layout
):
    told = []
    async with AsyncClient(demo_server.target) as client:
        progress = await job(corpus, tmp_path / "out", layout).run_async(
            client, on_progress=told.append
        )
    check_complete(tmp_path / "out", layout)
    assert told[-1] == progress


class StopHereError(Exception):
    """What a test raises to end a job early."""


def stop_after(documents):
    def on_progress(progress):
        if progress.documents >= documents:
            raise StopHereError

    return on_progress


@pytest.mark.parametrize("layout", FORMATS)
def test_a_resumed_job_computes_what_is_not_there_and_nothing_else(
    client, corpus, tmp_path, check_complete, layout
):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out, layout).run(client, on_progress=stop_after(25))
    assert manifest_of(out)["finished_at"] is None
    progress = job(corpus, out, layout, resume=True).run(client)
    assert progress.resumed_vectors + progress.resumed_failed == 25
    check_complete(out, layout)


async def test_a_job_that_is_cancelled_keeps_what_came(
    demo_server, corpus, tmp_path, check_complete
):
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


def test_resuming_a_finished_job_changes_nothing_and_needs_no_server(client, corpus, tmp_path):
    done = job(corpus, tmp_path / "out").run(client)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with Client("127.0.0.1:1") as nobody:
        again = job(corpus, tmp_path / "out", resume=True).run(nobody)
    assert (again.vectors, again.failed, again.tokens) == (done.vectors, done.failed, done.tokens)
    after = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after == before


def test_vectors_that_were_lost_from_a_finished_job_are_made_again(
    client, corpus, tmp_path, check_complete
):
    out = tmp_path / "out"
    job(corpus, out, "files").run(client)
    (out / "activation_vector_short_doc-7_metadata.json").unlink()
    job(corpus, out, "files", resume=True).run(client)
    check_complete(out, "files")


@pytest.mark.parametrize("layout", FORMATS)
def test_without_resume_a_folder_with_a_job_is_refused_and_left_alone(
    client, corpus, tmp_path, layout
):
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
        ({"prepend_bos": False}, "prepend_bos is True there and False here"),
        ({"ordered": True}, "ordered is False there and True here"),
        ({"center": "latest"}, "center is None there and 'latest' here"),
        ({"layout": "parquet"}, "format is 'shards' there and 'parquet' here"),
        ({"rows_per_file": 17}, "rows_per_file is 16 there and 17 here"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_job_of_other_settings_is_not_resumed(client, corpus, tmp_path, settings, reason):
    job(corpus, tmp_path / "out").run(client)
    with pytest.raises(FailedPrecondition, match=reason):
        job(corpus, tmp_path / "out", resume=True, **settings).run(client)


def test_a_job_is_not_resumed_with_another_input_of_the_same_size(client, corpus, tmp_path):
    job(corpus, tmp_path / "out").run(client)
    corpus.write_text(corpus.read_text().replace("bridge", "garden"))
    with pytest.raises(FailedPrecondition, match="input sha256 is"):
        job(corpus, tmp_path / "out", resume=True).run(client)


def test_a_job_is_resumed_with_the_same_input_elsewhere(client, corpus, tmp_path):
    job(corpus, tmp_path / "out").run(client)
    moved = corpus.rename(tmp_path / "moved.jsonl")
    assert job(moved, tmp_path / "out", resume=True).run(client).vectors == COUNT - len(BLANK)


def test_a_job_is_not_resumed_with_a_folder_whose_files_changed(client, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("One text.")
    (texts / "b.txt").write_text("Another text.")
    job(texts, tmp_path / "out").run(client)
    assert job(texts, tmp_path / "out", resume=True).run(client).vectors == 2
    (texts / "c.txt").write_text("A third one.")
    with pytest.raises(FailedPrecondition, match="input files is 2 there and 3 here"):
        job(texts, tmp_path / "out", resume=True).run(client)


def test_a_job_is_not_resumed_by_a_server_of_other_vectors(client, corpus, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out).run(client, on_progress=stop_after(20))
    manifest = manifest_of(out)
    manifest["stamp"]["layers"] = [1, 2, 3]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StampChanged, match=r"layers is \[1, 2, 3\] there and \[4, 5, 6\] here"):
        job(corpus, out, resume=True).run(client)
    assert manifest_of(out)["vectors"] == manifest["vectors"]


@pytest.fixture
def make_mean(client):
    """Makes a corpus mean that is gone after the test."""
    made = []

    def make(texts):
        made.append(client.corpus_mean(texts, job=f"bulk-{len(made)}").id)
        return made[-1]

    yield make
    for mean in made:
        client.delete_mean(mean)


def test_a_resumed_job_is_centred_by_the_mean_that_was_the_latest_when_it_began(
    client, corpus, tmp_path, make_mean
):
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


def test_two_processes_do_not_write_to_one_folder(client, corpus, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out"),
        pytest.raises(Aborted, match="another process is writing to"),
    ):
        job(corpus, tmp_path / "out").run(client)
    assert list((tmp_path / "out").iterdir()) == []
    job(corpus, tmp_path / "out").run(client)


def test_a_job_without_a_server_can_be_gone_on_with(client, corpus, tmp_path, check_complete):
    with Client("127.0.0.1:1") as nobody, pytest.raises(ServerUnavailable):
        job(corpus, tmp_path / "out").run(nobody)
    job(corpus, tmp_path / "out", resume=True).run(client)
    check_complete(tmp_path / "out")


def test_order_is_kept_on_disk_where_it_is_asked_for(client, corpus, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out, ordered=True).run(client, on_progress=stop_after(30))
    job(corpus, out, ordered=True, resume=True).run(client)
    indices = [vector.index for vector in read_back(out, "shards")]
    assert indices == [number for number in range(COUNT) if number not in BLANK]


def test_a_half_written_line_of_the_errors_is_mended_and_each_failure_listed_once(
    client, corpus, tmp_path, check_complete
):
    out = tmp_path / "out"
    job(corpus, out).run(client)
    errors = (out / "errors.jsonl").read_bytes()
    for cut in (1, 30, len(errors.splitlines()[0]) + 2, len(errors)):
        (out / "errors.jsonl").write_bytes(errors[:-cut])
        job(corpus, out, resume=True).run(client)
        check_complete(out)


def test_a_second_document_of_one_id_is_a_failure_also_when_resumed(client, tmp_path):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    lines = [{"id": f"same-{n % 10}", "text": text_of(n + 1)} for n in range(19)]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(StopHereError):
        job(corpus, out, "files", ordered=True).run(client, on_progress=stop_after(14))
    progress = job(corpus, out, "files", ordered=True, resume=True).run(client)
    assert (progress.vectors, progress.failed) == (10, 9)
    assert sorted(vector.index for vector in read_back(out, "files")) == list(range(10))
    assert [failure["index"] for failure in failures_of(out)] == list(range(10, 19))


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


def test_a_file_that_is_not_full_is_written_when_its_time_has_come(client, corpus, tmp_path):
    """So that a kill costs little: here, of every document on its own."""
    seen = []

    def look(progress):
        seen.append((progress.vectors, len(read_back(tmp_path / "out", "shards"))))

    job(corpus, tmp_path / "out", save_every=0).run(client, on_progress=look)
    assert all(told == there for told, there in seen)


def test_until_then_it_is_not(client, corpus, tmp_path):
    seen = []

    def look(progress):
        seen.append((progress.vectors, len(read_back(tmp_path / "out", "shards"))))

    job(corpus, tmp_path / "out", save_every=3600).run(client, on_progress=look)
    assert all(there == told - told % 16 for told, there in seen[:-1])


def test_what_is_read_once_only_cannot_be_resumed(client, corpus, tmp_path, check_complete):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(corpus.read_text()))
    writer.start()
    told = []
    job(pipe, tmp_path / "out").run(client, on_progress=told.append)
    writer.join()
    check_complete(tmp_path / "out")
    assert told[-1].fraction is None
    assert told[-1].seconds_left is None
    with pytest.raises(FailedPrecondition, match="its input is a pipe"):
        job(pipe, tmp_path / "out", resume=True).run(client)


def test_all_that_fails_is_a_job_of_its_own(client, tmp_path):
    corpus = write_corpus(tmp_path / "blank.jsonl", BLANK)
    progress = job(corpus, tmp_path / "out").run(client)
    assert (progress.vectors, progress.failed) == (0, len(BLANK))
    assert manifest_of(tmp_path / "out")["stamp"] is None


def test_a_job_of_no_documents_is_finished_at_once(client, tmp_path):
    corpus = write_corpus(tmp_path / "empty.jsonl", [])
    progress = job(corpus, tmp_path / "out").run(client)
    assert (progress.vectors, progress.failed, progress.fraction) == (0, 0, 1)
    assert manifest_of(tmp_path / "out")["finished_at"]


def test_the_time_left_of_a_corpus_sorted_by_length_is_reckoned_from_its_bytes(client, tmp_path):
    """Nine short documents of ten, but a tenth of the text: most of the time is to come."""
    lines = [{"text": "Short."}] * 90 + [{"text": "A long one, word for word. " * 40}] * 10
    corpus = tmp_path / "sorted.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = []
    job(corpus, tmp_path / "out", ordered=True).run(client, on_progress=told.append)
    after_the_short = told[89]
    assert after_the_short.documents == 90
    assert after_the_short.fraction < 0.25
    assert after_the_short.seconds_left > 3 * after_the_short.seconds


def test_a_resumed_job_reckons_from_what_it_did_itself(client, corpus, tmp_path):
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
