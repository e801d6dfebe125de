"""Jobs: a corpus into a folder, each document once, with a manifest and the failures."""

import json
import os
import threading

import pytest

from actvec.client import AsyncClient, Document, FailedPrecondition
from actvec.client.bulk import VectorJob
from actvec.client.bulk.sinks.single_files import FileSink
from actvec.client.documents import open_documents
from actvec.client.errors import Aborted
from actvec.client.lock import locked
from tests.client.bulk.jobs import (
    BLANK,
    COUNT,
    FORMATS,
    failures_of,
    job,
    manifest_of,
    text_of,
    write_corpus,
)
from tests.client.bulk.saved import read_back


@pytest.mark.parametrize("layout", FORMATS)
def test_job_stores_each_document_once(client, corpus, tmp_path, check_complete, layout):
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
    assert {step.resumed_bytes for step in told} == {0}


def test_full_files_are_durable_between_two_saves(client, corpus, tmp_path):
    told = []
    new = job(corpus, tmp_path / "out", rows_per_file=16, save_every=1e9)
    new.run(client, on_progress=told.append)
    assert [step.durable for step in told[:-1]] == [step.vectors // 16 * 16 for step in told[:-1]]
    assert told[-1].durable == told[-1].vectors


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


def test_folder_has_one_process_at_a_time(client, corpus, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out"),
        pytest.raises(Aborted, match=rf"another process \(pid {os.getpid()}\) is writing to"),
    ):
        job(corpus, tmp_path / "out").run(client)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    job(corpus, tmp_path / "out").run(client)


def test_foreign_file_fails_its_document(client, tmp_path):
    """In a folder that `actvec extract`, or a job whose manifest is gone, has written to."""
    out = tmp_path / "out"
    same, other = text_of(1), text_of(2)
    folder = FileSink(out)
    for document in (Document("doc-1", same), Document("doc-3", other)):
        folder.save(client.extract(document, mode="short"))
    kept = {path: path.read_bytes() for path in out.glob("*doc-3*")}
    corpus = write_corpus(tmp_path / "corpus.jsonl", range(1, 5))
    for resume in (False, True):
        progress = job(corpus, out, "files", resume=resume).run(client)
        assert (progress.vectors, progress.failed) == (3, 1)
        (failure,) = failures_of(out)
        assert (failure["id"], failure["code"]) == ("doc-3", "FAILED_PRECONDITION")
        assert "another text" in failure["message"]
    assert {path: path.read_bytes() for path in out.glob("*doc-3*")} == kept
    assert {one.id for one in read_back(out, "files")} == {f"doc-{n}" for n in range(1, 5)}


def test_partial_file_is_written_in_time(client, corpus, tmp_path):
    """So that a kill costs little: here, each document gets a file."""
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


def test_input_read_once_cannot_be_resumed(client, corpus, tmp_path, check_complete):
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


def test_job_may_consist_of_failures(client, tmp_path):
    corpus = write_corpus(tmp_path / "blank.jsonl", BLANK)
    progress = job(corpus, tmp_path / "out").run(client)
    assert (progress.vectors, progress.failed) == (0, len(BLANK))
    assert manifest_of(tmp_path / "out")["stamp"] is None


def test_job_without_documents_finishes_at_once(client, tmp_path):
    corpus = write_corpus(tmp_path / "empty.jsonl", [])
    progress = job(corpus, tmp_path / "out").run(client)
    assert (progress.vectors, progress.failed, progress.fraction) == (0, 0, 1)
    assert manifest_of(tmp_path / "out")["finished_at"]


def test_time_left_of_a_sorted_corpus_follows_bytes(client, tmp_path):
    """Nine documents in ten are short, but hold a tenth of the text: most time is to come."""
    lines = [{"text": "Short."}] * 90 + [{"text": "A long one, word for word. " * 40}] * 10
    corpus = tmp_path / "sorted.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = []
    job(corpus, tmp_path / "out", ordered=True).run(client, on_progress=told.append)
    after_the_short = told[89]
    assert after_the_short.documents == 90
    assert after_the_short.fraction < 0.25
    assert after_the_short.seconds_left > 3 * after_the_short.seconds


def test_job_refuses_another_encoding(corpus, tmp_path):
    with pytest.raises(ValueError, match="travel as float32, not as float16"):
        VectorJob(open_documents(corpus), tmp_path, mode="short", encoding="float16")


def test_job_names_its_place(corpus, tmp_path):
    assert job(corpus, tmp_path / "out").place == str(tmp_path / "out")
