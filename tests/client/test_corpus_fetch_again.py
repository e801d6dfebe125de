"""A fetch that broke off, that was killed, that another runs beside, and the same one once more."""

import contextlib
import gzip
import json
import shutil
import signal
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actvec.client import SourceBroken
from actvec.client.corpora import fetching

from .c4 import write_shards
from .fetches import ACTVEC, fetch, read, referee


def test_a_fetch_that_broke_at_any_text_goes_on_to_the_same_file(c4, tmp_path, monkeypatch):
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


def test_a_fetch_that_is_killed_goes_on_where_it_was(tmp_path, program):
    folder = write_shards(tmp_path / "c4", shards=2, rows=8_000)
    options = ["--files", f"{folder}/*.gz", "--num-samples", "5000", "--candidates", "15000"]
    path, other = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    process = subprocess.Popen([*ACTVEC, "corpus", "fetch", *options, "--save-local", str(path)])
    progress = tmp_path / "killed.jsonl.part" / "progress.json"
    deadline = time.monotonic() + 60
    while not progress.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()

    code, output, _ = program("corpus", "fetch", *options, "--save-local", path)
    assert code == 0
    assert "Went on after" in output
    assert program("corpus", "fetch", *options, "--save-local", other)[0] == 0
    assert path.read_bytes() == other.read_bytes()
    assert not progress.parent.exists()


def test_a_fetch_killed_between_the_file_and_its_manifest_is_done_by_the_same_call(
    c4, tmp_path, monkeypatch
):
    path = tmp_path / "c.jsonl"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "version", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(c4, path)
    assert path.exists()
    fetched = fetch(c4, path)
    assert fetched.resumed_at == fetched.counts.seen
    assert fetched.manifest.exists()
    assert fetch(c4, path).cached


def test_an_interrupted_fetch_of_something_else_is_forgotten(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 1)

    def stop(counts):
        if counts.seen == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(c4, tmp_path / "c.jsonl", seed=1, on_text=stop)
    assert fetch(c4, tmp_path / "c.jsonl", seed=2).resumed_at == 0
    assert read(tmp_path / "c.jsonl") == referee(documents=10, seed=2, candidates=40)


def test_what_was_read_of_files_that_changed_since_is_forgotten(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 1)
    broken = sorted(c4.iterdir())[1]
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceBroken, match=r"shard 1 .*EOFError.*goes on from there"):
        fetch(c4, tmp_path / "c.jsonl", documents=60)
    broken.write_bytes(content)
    assert fetch(c4, tmp_path / "c.jsonl", documents=60).resumed_at == 0


def test_two_fetches_to_one_file_do_not_mix(c4, tmp_path, program):
    path = tmp_path / "c.jsonl"
    answers = []

    def start_another(counts):
        if counts.seen == 5:
            other = ["corpus", "fetch", "--files", f"{c4}/*", "--save-local", path]
            answers.append(program(*other))

    fetch(c4, path, on_text=start_another)
    ((code, _, errors),) = answers
    assert code == 2
    assert "another process is writing" in errors
    assert read(path) == referee(documents=10, seed=0, candidates=40)


def test_the_same_command_reads_nothing_again_and_says_so(c4, tmp_path, program):
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


def test_a_corpus_outlives_the_dataset_that_it_was_made_of(c4, tmp_path):
    path = tmp_path / "c.jsonl"
    fetch(c4, path)
    shutil.rmtree(c4)
    assert fetch(c4, path).cached


def test_a_file_that_holds_something_else_is_not_replaced(c4, tmp_path, program):
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
    assert "with seed 0;" in refusal("--seed", 1)
    assert "documents 10, seed 0" in refusal("--seed", 1, "--num-samples", 5)
    (c4 / "c4-train.00003-of-00003.json.gz").write_bytes(gzip.compress(b'{"text": "new"}\n'))
    assert "the dataset has changed" in refusal()
    (c4 / "c4-train.00003-of-00003.json.gz").unlink()
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    assert "changed after it was fetched" in refusal()
    path.write_bytes(content)
    path.with_name("c.jsonl.manifest.json").write_text("{}")
    assert "is damaged" in refusal()
