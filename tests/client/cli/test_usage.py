"""The program `actvec`: its output, files and exit codes."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from actvec.client import Client
from actvec.client.lock import locked
from tests.client.processes import start

TEXT = "The lighthouse stood dark for eleven years."


def test_info_shows_the_model(actvec):
    code, output, _ = actvec("info")
    assert code == 0
    assert "demo" in output
    assert "resid_post" in output
    assert "packed, float32 on cpu" in output
    assert "bit for bit the same in any step" in output
    assert "not bit for bit" not in output


def test_info_prints_json_for_programs(actvec):
    code, output, _ = actvec("info", "--json")
    assert code == 0
    assert json.loads(output)["limits"]["max_tokens"] > 0


def test_extract_writes_a_vector_and_its_metadata(actvec, tmp_path, demo_server):
    code, output, _ = actvec("extract", "--text", TEXT, "--mode", "long", "--out", tmp_path)
    assert code == 0
    (path,) = tmp_path.glob("*.safetensors")
    assert str(path) in output
    with Client(demo_server.target) as client:
        vector = client.extract(TEXT, mode="long")
    assert path.name == f"activation_vector_long_{vector.text_sha256[:12]}.safetensors"
    np.testing.assert_array_equal(load_file(path)["vec"], vector.values.astype(np.float16))
    metadata = json.loads(path.with_name(f"{path.stem}_metadata.json").read_text())
    assert metadata["tokens"] == vector.tokens
    assert metadata["centered"] is False


def test_extract_names_its_file_after_the_input(actvec, tmp_path):
    (tmp_path / "essay.txt").write_text(TEXT)
    code, output, _ = actvec(
        "extract", "--file", tmp_path / "essay.txt", "--mode", "short", "--out", tmp_path, "--json"
    )
    assert code == 0
    answer = json.loads(output)
    assert answer["id"] == "essay"
    assert answer["vector_path"] == str(tmp_path / "activation_vector_short_essay.safetensors")


def test_extract_never_overwrites_another_text(actvec, tmp_path):
    """Files of one name in different folders; the same file again is not another text."""
    first, second = tmp_path / "a" / "notes.txt", tmp_path / "b" / "notes.md"
    for path in (first, second):
        path.parent.mkdir()
        path.write_text(f"{TEXT} {path.suffix}")
    out = tmp_path / "out"
    options = ("--mode", "short", "--out", out)
    assert actvec("extract", "--file", first, *options)[0] == 0
    assert actvec("extract", "--file", first, *options)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    code, output, errors = actvec("extract", "--file", second, *options)
    assert (code, output) == (2, "")
    assert str(out / "activation_vector_short_notes.safetensors") in errors
    assert "another text" in errors
    assert "--out" in errors
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert actvec("extract", "--file", second, *options[:2], "--out", tmp_path / "more")[0] == 0


def test_errors_name_the_option(actvec):
    """The library names its argument; the program, its option and its variable."""
    code, _, errors = actvec("--target", "127.0.0.1:1", "info")
    assert code == 2
    assert "no actvec server answers at 127.0.0.1:1" in errors
    assert errors.endswith(" (--target / ACTVEC_TARGET)\n")


@pytest.mark.parametrize(
    "command",
    [
        ("extract", "--text", TEXT, "--mode", "short", "--out"),
        ("csv", "--samples", "--out"),
        ("report", "--samples", "--out"),
        ("mean", "download", "latest", "--out"),
        ("direction", "vectors", "--by", "label", "--out"),
        ("corpus", "fetch", "--files", "corpus.jsonl", "--save-local"),
        ("probe", "vectors", "--by", "label", "--figure"),
        ("verify", "corpus.jsonl", "--csv"),
        ("stream", "--mode", "short", "--out", "out"),
        ("direction", "--by", "label", "--out", "out"),
    ],
)
def test_urls_are_no_folders(actvec, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("vectors").mkdir()
    code, _, errors = actvec(*command, "s3://bucket/path.jsonl")
    assert code == 2
    assert (
        "s3://bucket/path.jsonl is a URL; only --out of `actvec stream`, `actvec local`" in errors
    )
    assert [path.name for path in tmp_path.iterdir()] == ["vectors"]


@pytest.mark.parametrize(
    "command", [("extract", "--text", TEXT, "--mode", "short"), ("csv", "--samples")]
)
def test_folders_in_use_are_refused(actvec, tmp_path, monkeypatch, command):
    monkeypatch.setattr("actvec.client.lock.VISIT_SECONDS", 0.0)
    with locked(tmp_path):
        code, output, errors = actvec(*command, "--out", tmp_path)
    assert (code, output) == (2, "")
    assert f"another process (pid {os.getpid()}) is writing to {tmp_path}" in errors
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert actvec(*command, "--out", tmp_path)[0] == 0


@pytest.mark.parametrize(
    "command",
    [("extract", "--text", TEXT, "--mode", "short"), ("stream", "texts", "--mode", "short")],
    ids=lambda command: command[0],
)
def test_paths_of_no_shell_are_read(actvec, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("texts").mkdir()
    Path("texts/a.txt").write_text(TEXT)
    assert actvec(*command, "--out=~/vectors")[0] == 0
    assert list(Path("home/vectors").glob("*.safetensors"))
    code, _, errors = actvec(*command, "--out", "")
    assert code == 2
    assert "'--out': it is empty" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "texts"]


@pytest.mark.parametrize(
    "command",
    [
        ("stream", "", "--mode", "short", "--out", "out"),
        ("mean", "compute", "", "--name", "empty"),
        ("csv", "", "--out", "out"),
        ("similarity", ""),
        ("verify", ""),
        ("report", ""),
        ("report", "--vectors", ""),
        ("corpus", "inspect", ""),
        ("plan", "", "--gpu", "L4"),
        ("extract", "--file", "", "--mode", "short"),
        ("direction", "", "--by", "label", "--out", "out"),
        ("check", ""),
        ("mean", "upload", "", "--name", "empty"),
        ("local", "vectors", "", "--mode", "short", "--out", "out"),
    ],
    ids=" ".join,
)
def test_empty_path_is_not_this_folder(actvec, tmp_path, monkeypatch, command):
    """It is the value of an unset variable of a shell."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(f"{name}.txt").write_text(f"{TEXT} {name}")
    code, output, errors = actvec(*command)
    assert (code, output) == (2, "")
    assert "it is empty; name a path, or . for this folder" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("written", "meant"), [("sream", "'stream'"), ("directions", "'direction'")]
)
def test_misspelled_verb_names_the_one_meant(actvec, written, meant):
    code, _, errors = actvec(written)
    assert code == 2
    assert f"Did you mean {meant}" in errors


def test_extract_reads_standard_input_by_default(demo_server, tmp_path):
    program = start(
        *("--target", demo_server.target, "extract", "-", "--mode", "short"),
        stdin=subprocess.PIPE,
        cwd=tmp_path,
    )
    program.communicate(TEXT.encode(), timeout=60)
    assert program.returncode == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "arguments", [["extract", "-"], ["stream", "-", "--out", "out"]], ids=lambda one: one[0]
)
def test_closed_standard_input_is_an_error(actvec, arguments, tmp_path, monkeypatch):
    """Python has none then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)
    code, output, errors = actvec(*arguments, "--mode", "short")
    assert (code, output) == (2, "")
    assert "Error: standard input is closed" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "--mode", "short"],
        ["extract", "--text", "a", "--file", "b", "--mode", "short"],
        ["extract", "--text", TEXT],
        ["extract", "--text", TEXT, "--mode", "medium"],
        ["extract", "--text", "", "--mode", "short"],
        ["extract", "--file", "absent.txt", "--mode", "short"],
        ["extract", "--text", TEXT, "--mode", "short", "--out", "/proc/none"],
        ["extract", "--text", TEXT, "--mode", "short", "--out", "/dev/null"],
        ["stream", "absent", "--mode", "short", "--out", "out"],
        ["stream", ".", "--mode", "short", "--out", "out"],
        ["stream", ".", "--mode", "short"],
        ["stream", ".", "--mode", "short", "--out", "out", "--window", "0"],
        ["stream", ".", "--mode", "short", "--out", "out", "--rows-per-file", "9"],
        ["extract", "--text", TEXT, "--mode", "short", "--timeout", "nan"],
        ["stream", ".", "--mode", "short", "--out", "out", "--retry-for", "NaN"],
        ["info", "--target", "nonsense"],
        ["info", "--target", "example.org:443", "--token", "secret"],
        ["unheard-of"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(actvec, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, errors = actvec(*arguments)
    assert (code, output) == (2, "")
    assert "Error" in errors


@pytest.mark.parametrize("stored", [["--vectors", "."], ["--csv", "raw.csv", "centered.csv"]])
def test_stored_vectors_are_not_centered(actvec, stored):
    """They would pass for vectors that are centered by the mean that was named."""
    code, output, errors = actvec("report", *stored, "--center", "samples")
    assert (code, output) == (2, "")
    assert "--center is for vectors that a server makes, not --vectors or --csv" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "--text", TEXT, "--mode", "short"],
        ["stream", ".", "--mode", "short", "--out", "out"],
        ["similarity", TEXT, "Another text."],
        ["csv", "--samples", "--out", "out"],
        ["report", "--samples"],
        ["verify"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("nothing", ["", " "])
def test_empty_mean_name_is_refused(actvec, arguments, nothing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(TEXT)
    code, output, errors = actvec(*arguments, "--center", nothing)
    assert (code, output) == (2, "")
    assert "Invalid value for '--center'" in errors
    assert "give a corpus mean's name, its id or latest" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_missing_server_says_what_to_do(actvec):
    code, _, errors = actvec("info", "--target", "127.0.0.1:1")
    assert code == 2
    assert "no actvec server answers at 127.0.0.1:1; start one with `actvec-server`" in errors


@pytest.mark.parametrize("before", [True, False])
def test_target_stands_before_or_after_the_verb(actvec, demo_server, monkeypatch, before):
    monkeypatch.setenv("ACTVEC_TARGET", "127.0.0.1:1")
    option = ["--target", demo_server.target]
    code, _, _ = actvec(*option, "info") if before else actvec("info", *option)
    assert code == 0


def test_token_comes_from_a_flag_or_the_environment(actvec, monkeypatch):
    monkeypatch.setenv("ACTVEC_TARGET", "example.org:443")
    for arguments in (["--token", "secret", "info"], ["info", "--token", "secret"]):
        assert "not encrypted" in actvec(*arguments)[2]
    monkeypatch.setenv("ACTVEC_TOKEN", "secret")
    assert "not encrypted" in actvec("info")[2]


@pytest.mark.parametrize("before", [True, False])
def test_token_file_of_the_command_line_comes_first(actvec, monkeypatch, before):
    """Before a token of the environment; but a token beside the file is the one."""
    monkeypatch.setenv("ACTVEC_TARGET", "example.org:443")
    monkeypatch.setenv("ACTVEC_TOKEN", "of another server")
    option = ["--token-file", "absent"]
    errors = actvec(*option, "info")[2] if before else actvec("info", *option)[2]
    assert errors == "Error: No such file or directory: absent\n"
    option += ["--token", "secret"]
    errors = actvec(*option, "info")[2] if before else actvec("info", *option)[2]
    assert "not encrypted" in errors


def test_version_and_help(actvec):
    code, output, _ = actvec("--version")
    assert code == 0
    assert output.startswith("actvec, version ")
    for verb in ("info", "extract", "stream"):
        code, output, _ = actvec(verb, "--help")
        assert code == 0
        assert "ACTVEC_TARGET" in output
        assert "ACTVEC_TOKEN" in output
