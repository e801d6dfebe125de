"""One process at a time in a folder."""

import errno
import os
import signal
import subprocess
import sys
import threading

import filelock
import pytest

from actvec.client.errors import Aborted
from actvec.client.lock import locked

HOLDER = """
import pathlib, sys
from actvec.client.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_owner_is_told_of_the_first(tmp_path):
    mine = pytest.raises(Aborted, match=rf"\(pid {os.getpid()}\)")
    with locked(tmp_path), mine as refused, locked(tmp_path):
        pytest.fail("held twice")
    assert str(tmp_path) in str(refused.value)
    with locked(tmp_path):
        pass


def test_killed_owner_holds_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Aborted, match=rf"\(pid {holder.pid}\)"), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with locked(tmp_path):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_owner_is_waited_for(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        ending = threading.Timer(0.1, holder.stdin.close)
        ending.start()
        with locked(tmp_path, wait=60):
            ending.join()


def test_file_is_not_held(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file"):
        pytest.fail("held")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_folder_without_locks_is_used(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
