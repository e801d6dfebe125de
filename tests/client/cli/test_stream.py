"""`actvec stream`: its output, files and exit codes."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess

import pyarrow.parquet as pq
import pytest

from actvec.client.cli import progress
from tests.client.processes import start
from tests.waiting import wait_until

TEXT = "The lighthouse stood dark for eleven years."


@pytest.fixture
def corpus(tmp_path):
    """A folder of five texts, one of them blank and one not UTF-8."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(3):
        (folder / f"good {number}.txt").write_text(f"{TEXT} {number}")
    (folder / "blank.txt").write_text(" \n")
    (folder / "latin1.txt").write_bytes(b"caf\xe9")
    return folder


def test_stream_lists_failures_and_exits_with_1(actvec, corpus, tmp_path):
    out = tmp_path / "out"
    code, output, errors = actvec("stream", corpus, "--mode", "short", "--out", out)
    assert code == 1
    assert "3 vectors" in output
    assert "2 failed" in output
    assert "errors.jsonl" in errors
    assert sorted(path.name for path in out.glob("*.safetensors")) == [
        f"activation_vector_short_good%20{number}.safetensors" for number in range(3)
    ]
    failures = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert {failure["id"] for failure in failures} == {"blank", "latin1"}
    assert all(failure["code"] == "INVALID_ARGUMENT" for failure in failures)
    assert all(failure["message"] for failure in failures)


def test_stream_without_failures_leaves_no_list(actvec, corpus, tmp_path):
    out = tmp_path / "out"
    for name in ("blank", "latin1"):
        (corpus / f"{name}.txt").unlink()
    code, output, errors = actvec("stream", corpus, "--mode", "short", "--out", out)
    assert (code, errors) == (0, "")
    assert "failed" not in output
    assert not (out / "errors.jsonl").exists()


def test_stream_refuses_a_folder_that_holds_a_job(actvec, corpus, tmp_path):
    out = tmp_path / "out"
    actvec("stream", corpus, "--mode", "short", "--out", out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    code, output, errors = actvec("stream", corpus, "--mode", "short", "--out", out)
    assert (code, output) == (2, "")
    assert "holds a finished job; resume it, or give another folder (--resume)" in errors
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_finished_job_resumes_without_a_server(actvec, corpus, tmp_path):
    arguments = ("stream", corpus, "--mode", "short", "--out", tmp_path / "out", "--resume")
    first = actvec(*arguments)
    assert (first[0], "3 vectors" in first[1]) == (1, True)
    code, output, errors = actvec(*arguments, "--target", "127.0.0.1:1")
    assert code == 1
    assert "3 vectors" in output
    assert "2 failed (5 documents were there already)" in output
    assert "errors.jsonl" in errors


def test_differing_setting_is_named(actvec, corpus, tmp_path):
    arguments = ("stream", corpus, "--out", tmp_path / "out", "--resume")
    actvec(*arguments, "--mode", "short")
    code, _, errors = actvec(*arguments, "--mode", "long", "--dtype", "float32")
    assert code == 2
    assert "mode is 'short' there and 'long' here" in errors
    assert "dtype is 'float16' there and 'float32' here" in errors


def test_stream_prints_json_for_programs(actvec, corpus, tmp_path):
    out = tmp_path / "out"
    code, output, _ = actvec("stream", corpus, "--mode", "long", "--out", out, "--json")
    summary = json.loads(output)
    assert code == 1
    assert (summary["vectors"], summary["failed"]) == (3, 2)
    assert summary["errors"] == str(out / "errors.jsonl")
    fine = tmp_path / "fine.jsonl"
    fine.write_text(json.dumps({"id": "one", "text": TEXT}))
    arguments = ("stream", fine, "--mode", "long", "--out", tmp_path / "fine", "--json")
    summary = json.loads(actvec(*arguments)[1])
    assert (summary["failed"], summary["errors"], summary["first_error"]) == (0, None, None)


def test_repeated_id_never_overwrites_a_file(actvec, tmp_path):
    lines = [{"id": "same", "text": f"{TEXT} {number}"} for number in range(3)]
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    code, _, errors = actvec("stream", source, "--mode", "short", "--out", out, "--ordered")
    assert code == 0
    assert "2 documents have the id of another one, for example 'same'" in errors
    assert sorted(path.name for path in out.glob("*.safetensors")) == [
        f"activation_vector_short_same{suffix}.safetensors" for suffix in ("", "~1", "~2")
    ]


def test_tables_follow_the_order_of_documents(actvec, corpus, tmp_path):
    out = tmp_path / "out"
    code, _, _ = actvec(
        *("stream", corpus, "--mode", "long", "--out", out, "--format", "parquet"),
        *("--dtype", "float32", "--rows-per-file", "2", "--ordered"),
    )
    assert code == 1
    tables = [pq.read_table(path) for path in sorted(out.glob("vectors.parquet/*.parquet"))]
    assert [table["id"].to_pylist() for table in tables] == [["good 0", "good 1"], ["good 2"]]
    assert tables[0]["vector"].type.value_type == "float"


def test_too_many_rows_are_refused_first(actvec, corpus, tmp_path):
    out = tmp_path / "out"
    code, output, errors = actvec(
        *("stream", corpus, "--mode", "short", "--out", out, "--format", "shards"),
        *("--rows-per-file", 10**14),
    )
    assert (code, output) == (2, "")
    assert "Invalid value for '--rows-per-file'" in errors
    assert "1<=x<=1048576" in errors
    assert not out.exists()


def test_log_gets_a_line_now_and_then(actvec, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    _, _, errors = actvec("stream", corpus, "--mode", "short", "--out", tmp_path / "out")
    lines = [line for line in errors.splitlines() if "tokens/s" in line]
    assert len(lines) == 6
    assert re.fullmatch(
        r"100\.0%: 5 documents, 2 failed, \d+ tokens, [\d,]+ tokens/s; 0:00:00 left",
        lines[-1],
    )


def test_a_terminal_gets_a_progress_bar(demo_server, corpus, tmp_path):
    reader, terminal = pty.openpty()
    program = start(
        *("stream", corpus, "--mode", "short", "--out", tmp_path / "out"),
        *("--target", demo_server.target),
        stderr=terminal,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # a terminal without a program behind it ends like this
        while data := os.read(reader, 4096):
            shown += data
    os.close(reader)
    assert program.wait(60) == 1
    assert b"5 documents, 2 failed" in shown
    assert b"tokens" in shown


@pytest.mark.parametrize("number_of_signal", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_no_half_file(demo_server, tmp_path, number_of_signal):
    source = tmp_path / "endless.jsonl"
    os.mkfifo(source)
    out = tmp_path / "out"
    program = start(
        *("stream", source, "--mode", "short", "--out", out, "--target", demo_server.target),
        stderr=subprocess.PIPE,
        text=True,
    )
    with source.open("w") as pipe:
        for number in (1, 2):
            pipe.write(json.dumps({"text": TEXT}) + "\n")
            pipe.flush()
            wait_until(lambda: len(list(out.glob("*_metadata.json"))) == number)  # noqa: B023
        program.send_signal(number_of_signal)
        _, errors = program.communicate(timeout=60)
    assert program.returncode == 128 + number_of_signal
    assert errors.startswith("Stopped after ")
    assert len(errors.strip().splitlines()) == 1
    vectors = list(out.glob("*.safetensors"))
    assert len(vectors) == 2
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "manifest.json",
        *(path.name for path in vectors),
        *(f"{path.stem}_metadata.json" for path in vectors),
    }


def test_stream_keeps_columns_of_the_input(actvec, tmp_path):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    corpus.write_text(json.dumps({"text": TEXT, "label": "sea", "source": "web", "year": 1927}))
    asked = ["stream", corpus, "--mode", "short", "--out", out, "--format", "parquet"]
    assert actvec(*asked, "--keep", " label, year ")[0] == 0
    table = pq.read_table(out / "vectors.parquet")
    assert table.select(["label", "year"]).to_pylist() == [{"label": "sea", "year": 1927}]
    code, _, errors = actvec(*asked, "--resume", "--keep", "label,topic")
    assert code == 2
    assert "no column 'topic'; there are: text, label, source, year" in errors
    code, _, errors = actvec(*asked, "--resume", "--keep", "source")
    assert code == 2
    assert "column 'source' cannot be kept" in errors
    assert "(--keep)" in errors
