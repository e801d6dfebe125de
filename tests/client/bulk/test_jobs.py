"""Jobs: a corpus into a folder, each document once, with a manifest and what failed."""

import json
import os
import threading

import pytest

from actvec.client import AsyncClient, Document, FailedPrecondition
from actvec.client.errors import Aborted
from actvec.client.files import VectorFolder
from actvec.client.lock import locked

from .jobs import (
    BLANK,
    COUNT,
    FORMATS,
    failures_of,
    job,
    manifest_of,
    text_of,
    write_corpus,
)
from .saved import read_back


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


def test_two_processes_do_not_write_to_one_folder(client, corpus, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out"),
        pytest.raises(Aborted, match="another process is writing to"),
    ):
        job(corpus, tmp_path / "out").run(client)
    assert list((tmp_path / "out").iterdir()) == []
    job(corpus, tmp_path / "out").run(client)


def test_documents_whose_names_hold_other_texts_fail_and_nothing_is_replaced(client, tmp_path):
    """In a folder that `actvec extract`, or a job whose manifest is gone, has written to."""
    out = tmp_path / "out"
    same, other = text_of(1), text_of(2)
    folder = VectorFolder(out)
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
