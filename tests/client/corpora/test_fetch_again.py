"""Fetches that were interrupted, killed, repeated, or run side by side."""

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actvec.client import FailedPrecondition, SourceBroken
from actvec.client.corpora import fetching
from tests.client.corpora.c4 import write_shards
from tests.client.corpora.fetches import fetch, read, referee


def test_broken_fetch_resumes_to_the_same_file(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 7)
    wanted = fetch(c4, tmp_path / "whole.jsonl", documents=25)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "broken.jsonl"

    class PowerCut(BaseException):
        pass

    @settings(
        deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(st.integers(1, wanted.counts.seen), min_size=1, max_size=3))
    def check(breaks):
        for at in breaks:

            def cut(counts, at=at):
                if counts.seen == at:
                    raise PowerCut

            with contextlib.suppress(PowerCut):
                fetch(c4, path, documents=25, on_text=cut)
        fetched = fetch(c4, path, documents=25)
        assert path.read_bytes() == whole
        assert fetched.counts == wanted.counts
        for left in tmp_path.glob("broken.jsonl*"):
            left.unlink()

    check()


# `actvec`, which kills itself with SIGKILL in its second commit.
KILLED = """
import os, signal, sys
from actvec.client.cli import main
from actvec.client.corpora import fetching

commits = 0

def watch(event, arguments):
    global commits
    if event == "os.rename" and str(arguments[1]).endswith("progress.json"):
        commits += 1
        if commits == 2:
            os.kill(os.getpid(), signal.SIGKILL)

fetching._COMMIT_EVERY = 50
sys.addaudithook(watch)
main()
"""


def test_killed_fetch_resumes(tmp_path, program):
    folder = write_shards(tmp_path / "c4", shards=2, rows=200)
    options = ["--files", f"{folder}/*.gz", "--num-samples", "50", "--candidates", "350"]
    path, other = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    command = [sys.executable, "-c", KILLED, "corpus", "fetch", *options, "--save-local", path]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    progress = tmp_path / "killed.jsonl.part" / "progress.json"
    assert progress.exists()
    assert not path.exists()

    code, output, _ = program("corpus", "fetch", *options, "--save-local", path)
    assert code == 0
    assert "Continued after" in output
    assert program("corpus", "fetch", *options, "--save-local", other)[0] == 0
    assert path.read_bytes() == other.read_bytes()
    assert not progress.parent.exists()


@pytest.mark.parametrize("step", ["write_corpus", "version", "write_json", "sync_folder"])
def test_fetch_killed_at_its_end_is_finished(c4, tmp_path, monkeypatch, step):
    fetch(c4, tmp_path / "whole.jsonl")
    path = tmp_path / "c.jsonl"
    act = getattr(fetching, step)

    def killed(*arguments):
        act(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, step, killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(c4, path)
    fetched = fetch(c4, path)
    assert fetched.cached or fetched.resumed_at == fetched.counts.seen
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    left = {one.name for one in tmp_path.glob("c.jsonl*")}
    assert left == {"c.jsonl", "c.jsonl.manifest.json"}
    assert fetch(c4, path).cached


def test_file_that_came_meanwhile_is_not_replaced(c4, tmp_path):
    path = tmp_path / "c.jsonl"

    def stop(counts):
        if counts.seen == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(c4, path, on_text=stop)
    path.write_text("notes")
    with pytest.raises(FailedPrecondition, match="no fetch wrote it"):
        fetch(c4, path)
    assert path.read_text() == "notes"


def test_interrupted_fetch_of_another_corpus_is_dropped(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 1)

    def stop(counts):
        if counts.seen == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(c4, tmp_path / "c.jsonl", seed=1, on_text=stop)
    assert fetch(c4, tmp_path / "c.jsonl", seed=2).resumed_at == 0
    assert read(tmp_path / "c.jsonl") == referee(documents=10, seed=2, candidates=40)


def test_changed_files_are_fetched_anew(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 1)
    broken = sorted(c4.iterdir())[1]
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceBroken, match=r"shard 1 .*cut short or damaged.*continues after them"):
        fetch(c4, tmp_path / "c.jsonl", documents=60)
    broken.write_bytes(content)
    assert fetch(c4, tmp_path / "c.jsonl", documents=60).resumed_at == 0


def test_parallel_fetches_do_not_mix(c4, tmp_path, program):
    path = tmp_path / "c.jsonl"
    answers = []

    def start_another(counts):
        if counts.seen == 5:
            other = ["corpus", "fetch", "--files", f"{c4}/*", "--save-local", path]
            answers.append(program(*other))

    fetch(c4, path, on_text=start_another)
    ((code, _, errors),) = answers
    assert code == 2
    assert f"another process (pid {os.getpid()}) is writing" in errors
    assert read(path) == referee(documents=10, seed=0, candidates=40)


def test_repeated_command_reads_nothing(c4, tmp_path, program):
    path = tmp_path / "c.jsonl.gz"
    options = ["--files", f"{c4}/*.gz", "--num-samples", 10, "--save-local", path]
    first = json.loads(program("corpus", "fetch", *options, "--json")[1])
    written = path.stat().st_mtime_ns
    second = json.loads(program("corpus", "fetch", *options, "--json")[1])
    assert (first["cached"], second["cached"]) == (False, True)
    assert {**first, "cached": True} == second
    assert path.stat().st_mtime_ns == written
    code, output, _ = program("corpus", "fetch", *options)
    assert code == 0
    assert "Nothing was read" in output


def test_corpus_outlives_its_dataset(c4, tmp_path):
    path = tmp_path / "c.jsonl"
    fetch(c4, path)
    shutil.rmtree(c4)
    assert fetch(c4, path).cached


def test_foreign_file_is_not_replaced(c4, tmp_path, program):
    path = tmp_path / "c.jsonl"
    options = ["--files", f"{c4}/*.gz", "--num-samples", 10, "--save-local", path]

    def refusal(*more):
        before = path.read_bytes()
        code, output, errors = program("corpus", "fetch", *options, *more)
        assert (code, output, path.read_bytes()) == (2, "", before)
        assert "remove it to fetch it anew" in errors
        return errors

    path.write_text("notes")
    assert "no fetch wrote it" in refusal()
    path.unlink()
    program("corpus", "fetch", *options)
    assert "seed is 0 there and 1 here;" in refusal("--seed", 1)
    assert "documents is 10 there and 5 here; seed is 0 there" in refusal(
        "--seed", 1, "--num-samples", 5
    )
    (c4 / "c4-train.00003-of-00003.json.gz").write_bytes(gzip.compress(b'{"text": "new"}\n'))
    assert "the dataset has changed" in refusal()
    (c4 / "c4-train.00003-of-00003.json.gz").unlink()
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    assert "changed after it was fetched" in refusal()
    path.write_bytes(content)
    path.with_name("c.jsonl.manifest.json").write_text("{}")
    assert "is damaged" in refusal()
