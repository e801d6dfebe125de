"""One server at a time in a data directory."""

import os
import signal
import subprocess
import sys

import pytest

from actvec.server.errors import StartupError
from actvec.server.program.ownership import owned
from tests.conftest import NotStartedError

HOLDER = """
import sys, pathlib
from actvec.server.program.ownership import owned
with owned(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_owner_learns_of_the_first(tmp_path):
    path, taken = tmp_path / "data", rf"another server \(process {os.getpid()}\) uses"
    with owned(path):
        with pytest.raises(StartupError, match=taken) as no, owned(path):
            pass
        assert str(path) in str(no.value)
    with owned(path):
        pass


def test_a_killed_owner_holds_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StartupError, match=rf"process {holder.pid}\)"), owned(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with owned(tmp_path):
            pass


def test_a_directory_that_cannot_be_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(
        StartupError, match=r"cannot use the data directory .*: Not a directory"
    )
    with refused, owned(tmp_path / "file" / "data"):
        pass


def test_second_server_exits_with_2(start_server, tmp_path):
    first = start_server("--model=demo", data_dir=tmp_path)
    with pytest.raises(NotStartedError, match="uses the data directory") as refused:
        start_server("--model=demo", data_dir=tmp_path)
    assert refused.value.code == 2
    assert str(tmp_path) in refused.value.log
    assert refused.value.log.count("\n") == 1
    first.stop()
    start_server("--model=demo", data_dir=tmp_path).stop()
