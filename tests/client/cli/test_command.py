"""The program's entry point: its behavior before anything is imported."""

import os
import signal
import subprocess
import sys

import pytest

# Runs the program, and interrupts it when it imports a module.
PROGRAM = """
import os, signal, sys

module = sys.argv.pop(1)

def watch(event, arguments):
    if event == "import" and arguments[0] == module:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(watch)
from actvec.command import main
main()
"""


def run(*arguments, program=PROGRAM, **env):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        encoding=env.get("PYTHONIOENCODING", "utf-8"),
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"} | env,
    )


@pytest.mark.parametrize("module", ["actvec.client", "grpc", "numpy", "click", "actvec.client.cli"])
def test_interrupt_of_imports_is_quiet(module):
    ended = run(module, "info", "--target", "127.0.0.1:1")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_interrupt_of_a_verb_is_quiet():
    ended = run("actvec.client.bulk", "stream", "corpus.jsonl", "--mode=short", "--out=out")
    assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (130, "", "")


def test_ignored_interrupts_stay_ignored():
    """As in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended = run("grpc", "info", "--target", "127.0.0.1:1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: ")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8"])
def test_output_fits_any_encoding(tmp_path, encoding):
    """That of a pipe on Windows, or of an old locale."""
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "\u65e5\u672c", "text": "One text."}\n')
    # On a pipe, click replaces ASCII by UTF-8 itself.
    ended = run("-", "corpus", "inspect", str(path), PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert ended.returncode == 0, ended.stderr
    assert ("\u65e5\u672c" if encoding == "utf-8" else r"\u65e5\u672c") in ended.stdout


@pytest.mark.parametrize("stream", ["1", "2"])
def test_closed_streams_get_nothing(tmp_path, stream):
    """As with `2>&-` in a shell."""
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "One text."}\n')
    program = (
        "import os, sys; os.close(int(sys.argv[1]));"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[2], *sys.argv[3:]])"
    )
    save = ("corpus", "fetch", "--files", str(path), "--save-local", str(tmp_path / "new.jsonl"))
    ended = run(stream, PROGRAM, "-", *save, program=program)
    assert (ended.returncode, (tmp_path / "new.jsonl").exists()) == (0, True)
    assert ended.stderr == ""


@pytest.fixture(scope="module")
def encrypted(start_server, authority):
    """The target of a server with TLS."""
    issued = authority.issue("command-tests-server", "127.0.0.1")
    server = start_server(f"--tls-cert={issued.cert}", f"--tls-key={issued.key}")
    return f"https://{server.target}"


def test_failed_tls_is_one_line(encrypted):
    ended = run("-", "info", "--target", encrypted)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    # gRPC's own words, which its log gives in five lines.
    assert "CERTIFICATE_VERIFY_FAILED" in ended.stderr


def test_log_of_grpc_can_be_asked_for(encrypted):
    ended = run("-", "info", "--target", encrypted, GRPC_VERBOSITY="INFO")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) > 1
