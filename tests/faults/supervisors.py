"""Supervisors that keep a server and a client running while they are killed."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

from tests.conftest import StartServer
from tests.proxy import CuttingProxy


class ServerSupervisor:
    """An `actvec-server` behind a proxy, restarted over the same data when it is killed."""

    def __init__(self, start: StartServer, data_dir: Path, *options: str) -> None:
        self._start = partial(start, *options, data_dir=data_dir)
        self._server = self._start()
        self.starts = 1
        self.proxy = CuttingProxy(self._server.target)

    @property
    def pid(self) -> int:
        return self._server.process.pid

    def restart(self, number: signal.Signals) -> None:
        """Signal it, wait for its end, and start it again."""
        # Twice its grace, and a busy machine.
        self._server.stop(number, timeout=120)
        self.starts += 1
        self._server = self._start()
        self.proxy.redirect(self._server.target)

    def close(self) -> None:
        self.proxy.close()
        self._server.stop(signal.SIGKILL)


class ClientSupervisor:
    """An `actvec` command, run again when it is killed, until it is done.

    A command ends with an error if it starts without a server, if its first call is cut, or if the
    server has not noticed the death of the previous client; the supervisor soon runs it again, as a
    person would.
    """

    PASSING = (
        "no actvec server answers",
        "closes the connection",
        "the connection to the server",
        "another client holds",
    )

    def __init__(self, *arguments: object) -> None:
        self._command = [sys.executable, "-c", "from actvec.client.cli import main; main()"]
        self._command += [str(argument) for argument in arguments]
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run)
        self.runs = 0
        self.output = ""
        self.error = ""
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def kill(self) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def wait(self) -> str:
        """Wait for the command, and return its output.

        Raises:
            RuntimeError: it failed for another reason than a kill.
        """
        self._thread.join()
        if self.error:
            raise RuntimeError(self.error)
        return self.output

    def _run(self) -> None:
        while True:
            self.runs += 1
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            self.output, errors = self._process.communicate()
            if self._process.returncode == 0:
                return
            if self._process.returncode == -signal.SIGKILL:
                continue
            if any(reason in errors for reason in self.PASSING):
                time.sleep(0.5)
                continue
            self.error = f"exit code {self._process.returncode}: {errors}"
            return
