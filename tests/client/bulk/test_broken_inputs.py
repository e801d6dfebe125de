"""Inputs that cannot be read for now: the job does not count as finished, and a resume retries."""

import gzip
import json
from dataclasses import replace

import pytest

from actvec.client import Failure, SourceBroken
from actvec.client.documents.lines import LinesSource
from tests.client.bulk.jobs import BLANK, COUNT, failures_of, job, manifest_of, text_of


class FailingDisk(LinesSource):
    """Lines that cannot be read beyond some document, until the disk is healed."""

    def __init__(self, path, breaks_at):
        super().__init__(path)
        self.breaks_at = breaks_at

    def scan(self, skip=frozenset()):
        for located in super().scan(skip):
            if self.breaks_at is not None and located.index >= self.breaks_at:
                raise SourceBroken("the disk is gone")
            yield located


def test_broken_input_keeps_what_was_read(client, corpus, tmp_path, check_complete):
    out, source = tmp_path / "out", FailingDisk(corpus, breaks_at=37)
    with pytest.raises(SourceBroken, match="the disk is gone"):
        job(source, out).run(client)
    assert (manifest_of(out)["vectors"], manifest_of(out)["finished_at"]) == (35, None)
    # Now among the finished documents.
    source.breaks_at = 10
    with pytest.raises(SourceBroken):
        job(source, out, resume=True).run(client)
    assert manifest_of(out)["finished_at"] is None
    source.breaks_at = None
    job(source, out, resume=True).run(client)
    check_complete(out)


def test_truncated_archive_ends_in_an_error(program, demo_server, tmp_path):
    path, out = tmp_path / "corpus.jsonl.gz", tmp_path / "out"
    lines = "".join(json.dumps({"text": text_of(n)}) + "\n" for n in range(1, 20))
    path.write_bytes(gzip.compress(lines.encode())[:-8])
    server = ("--target", demo_server.target)
    code, _, errors = program("stream", path, "--mode=short", "--out", out, *server)
    assert code == 2
    assert "line 20: from here on the file cannot be read" in errors
    assert "Stopped after 19 vectors" in errors
    assert manifest_of(out)["finished_at"] is None


class AwayFor(LinesSource):
    """Lines with one document that cannot be read, with a code, until the code is None."""

    def __init__(self, path, index, code):
        super().__init__(path)
        self.index, self.code = index, code

    def scan(self, skip=frozenset()):
        for located in super().scan(skip):
            if located.index == self.index and self.code:
                failure = Failure(located.document.id, self.code, "not now")
                yield replace(located, document=failure)
            else:
                yield located


@pytest.mark.parametrize("code", ["INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"])
def test_temporary_failures_are_tried_again(client, corpus, tmp_path, check_complete, code):
    out, source = tmp_path / "out", AwayFor(corpus, 7, code)
    assert job(source, out).run(client).failed == len(BLANK) + 1
    assert job(source, out, resume=True).run(client).failed == len(BLANK) + 1
    assert [failure["index"] for failure in failures_of(out)].count(7) == 1
    source.code = None
    progress = job(source, out, resume=True).run(client)
    assert (progress.vectors, progress.resumed_failed) == (COUNT - len(BLANK), len(BLANK))
    check_complete(out)
