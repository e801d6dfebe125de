"""One server at a time in a data directory."""

import os
import signal
import subprocess
import sys

import pytest

from actvec.server.errors import StartupError
from actvec.server.program.ownership import Ownership
from tests.conftest import NotStartedError

HOLDER = """
import sys, pathlib
from actvec.server.program.ownership import Ownership
held = Ownership.take(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_second_owner_learns_of_the_first(tmp_path):
    held = Ownership.take(tmp_path / "data")
    with pytest.raises(StartupError, match=rf"another server \(process {os.getpid()}\) uses") as no:
        Ownership.take(tmp_path / "data")
    assert str(tmp_path / "data") in str(no.value)
    held.release()
    held.release()
    Ownership.take(tmp_path / "data").release()


def test_a_killed_owner_holds_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StartupError, match=rf"process {holder.pid}\)"):
            Ownership.take(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        Ownership.take(tmp_path).release()


def test_a_directory_that_cannot_be_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"cannot use the data directory .*: Not a directory"):
        Ownership.take(tmp_path / "file" / "data")


def test_second_server_exits_with_2(start_server, tmp_path):
    first = start_server("--model=demo", data_dir=tmp_path)
    with pytest.raises(NotStartedError, match="uses the data directory") as refused:
        start_server("--model=demo", data_dir=tmp_path)
    assert refused.value.code == 2
    assert str(tmp_path) in refused.value.log
    assert refused.value.log.count("\n") == 1
    first.stop()
    start_server("--model=demo", data_dir=tmp_path).stop()
