"""`actvec stream`, killed again and again: each document once, and bit for bit as without kills.

The program kills itself with SIGKILL just before some file operation in its folder (a file is made,
renamed or removed), or within some milliseconds of it. A seed chooses the operation.
"""

import json
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.bulk.saved import read_back
from tests.client.processes import run_forked

COUNT = 48
ROWS = 8
BLANK = range(0, COUNT, 12)

# For each format, a part of a job's file operations.
OPERATIONS = {"files": 80, "shards": 30, "parquet": 24}

PROGRAM = """
import os, signal, sys, threading

operations, delay, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def watch(event, arguments):
    global operations
    if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(folder):
        operations -= 1
        if operations == 0:
            threading.Timer(delay, kill).start() if delay else kill()

sys.addaudithook(watch)
from actvec.client.cli import main
main(sys.argv[4:])
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    texts = [" " if n in BLANK else f"The harbour was dredged in {1800 + n}." for n in range(COUNT)]
    lines = [json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)]
    path.write_text("".join(lines))
    return path


@dataclass
class KilledJob:
    """A folder that the program writes to until it kills itself."""

    command: list[str]
    folder: Path
    layout: str

    def run(self, operations=0, delay=0.0):
        """Start the program; it kills itself some seconds after an operation; 0 for never."""
        moment = (str(operations), str(delay), str(self.folder))
        return run_forked(PROGRAM, *moment, *self.command, log=self.folder.with_suffix(".log"))

    def vectors(self):
        """index -> id and bits; fails if a document appears twice."""
        saved = read_back(self.folder, self.layout)
        found = {vector.index: (vector.id, vector.values.tobytes()) for vector in saved}
        assert len(found) == len(saved)
        return found

    def accepted(self):
        """Whether a server has accepted the settings."""
        path = self.folder / "manifest.json"
        return path.exists() and json.loads(path.read_text())["stamp"] is not None

    def failures(self):
        """index -> message; fails if a document appears twice."""
        path = self.folder / "errors.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = {record["index"]: record["message"] for record in map(json.loads, lines)}
        assert len(found) == len(lines)
        return found


@pytest.fixture
def job_in(demo_server, corpus):
    """A job in a folder."""

    def make(folder, layout):
        rows = [] if layout == "files" else ["--rows-per-file", str(ROWS)]
        command = [
            *("stream", str(corpus), "--out", str(folder), "--resume", "--json"),
            *("--mode", "short", "--format", layout, *rows),
            *("--save-every", "0.02", "--target", demo_server.target),
        ]
        return KilledJob(command, folder, layout)

    return make


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("layout", OPERATIONS)
def test_killed_job_ends_as_if_undisturbed(job_in, tmp_path, layout, seed):
    whole, job = job_in(tmp_path / "whole", layout), job_in(tmp_path / "out", layout)
    assert whole.run().returncode == 1
    expected = whole.vectors()
    assert expected.keys() == set(range(COUNT)) - set(BLANK)
    assert whole.failures().keys() == set(BLANK)

    chance = random.Random(f"{layout} {seed}")  # noqa: S311 - kills, not secrets
    kills, done = 0, set()
    # Twice near the start, at once, so that it cannot end before; then each about a part later.
    at_once = [(3, 0.0), (chance.randrange(4, 12), 0.0)]
    later = [(chance.randrange(4, OPERATIONS[layout]), chance.uniform(0, 0.02)) for _ in range(3)]
    for moment in at_once + later:
        program = job.run(*moment)
        assert program.returncode in (1, -signal.SIGKILL), program.stderr
        kills += program.returncode == -signal.SIGKILL
        vectors, failures = job.vectors(), job.failures()
        assert vectors.items() <= expected.items()
        assert vectors.keys().isdisjoint(failures)
        assert done <= vectors.keys() | failures.keys()
        # A job whose settings no server has accepted starts afresh: what it could not read fails
        # again.
        done = vectors.keys() | failures.keys() if job.accepted() else set()
    assert kills >= 2

    last = job.run()
    assert last.returncode == 1, last.stderr
    assert json.loads(last.stdout)["resumed"] == len(done)
    assert job.vectors() == expected
    assert job.failures() == whole.failures()
    assert json.loads((job.folder / "manifest.json").read_text())["finished_at"]
    assert [path.name for path in job.folder.rglob(".*")] == [".lock"]
