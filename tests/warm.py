"""Programs of the server without the seconds of its imports: forks of a process that has done them.

Most tests are about a server and not about its start. What they get is the program in a process of
its own, with its own signals, output and exit code; only its parent has imported things before.
What depends on the imports, or on the command that is typed, is tested with the program itself.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVER = "from actvec.server.main import main; main()"


class WarmProcess:
    """A running program, with of `subprocess.Popen` what the tests use."""

    def __init__(self, pid: int, output: Path, ended: Path) -> None:
        self.pid = pid
        self.stdout = output.open()
        self._ended = ended

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return int(self._ended.read_text()) if self._ended.exists() else None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() > began + timeout:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmStart:
    """Starts programs; the process that they are forks of is started with the first one."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="actvec-warm-")
        self._parent: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def __call__(
        self, program: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> WarmProcess:
        """Run `program`, Python code, with these arguments; standard error goes to `log`."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        output, ended = folder / "stdout", folder / "ended"
        os.mkfifo(output)
        request = {
            "program": program,
            "arguments": list(arguments),
            "environment": dict(environment),
            "output": str(output),
            "log": str(log),
            "ended": str(ended),
        }
        with self._lock:
            if self._parent is None:
                self._parent = subprocess.Popen(
                    [sys.executable, __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            self._parent.stdin.write(f"{json.dumps(request)}\n")
            self._parent.stdin.flush()
            pid = int(self._parent.stdout.readline())
        return WarmProcess(pid, output, ended)

    def close(self) -> None:
        """End the parent, once every program has ended."""
        if self._parent is not None:
            self._parent.kill()
            self._parent.communicate()
        self._folder.cleanup()


def _fork_on_request() -> None:
    """The parent: imports, then a program for each line on standard input."""
    # As `main` has it, before grpc is imported.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    from actvec.server.main import import_server  # noqa: PLC0415

    import_server()
    for line in sys.stdin:
        # Nobody waits for the keepers.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep(json.loads(line))
            return


def _keep(request: Mapping[str, str]) -> None:
    """Fork the program, tell its pid, and write its exit code down when it ends."""
    pid = os.fork()
    if pid == 0:
        _become(request)
        return
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    ended = Path(request["ended"])
    ended.with_suffix(".part").write_text(str(os.waitstatus_to_exitcode(status)))
    ended.with_suffix(".part").rename(ended)
    os._exit(0)


def _become(request: Mapping[str, str]) -> None:
    """Run the program as if it had been started by itself."""
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (2, request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (1, request["output"], os.O_WRONLY),
    ):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["actvec-server", *request["arguments"]]
    exec(request["program"], {"__name__": "__main__"})  # noqa: S102 - the tests' own code


if __name__ == "__main__":
    _fork_on_request()
