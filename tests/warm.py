"""Programs without the seconds of their start: forks of a process that has done it.

Most tests concern a program and not its start. They get the program in its own process, with its
own signals, output and exit code; only its parent has imported modules before, and has loaded,
checked and measured the demo model. Nor does it take down at its end, for a third of a second of a
processor, what the parent has imported. Behavior that depends on the imports, on the typed command,
or on the interpreter's last steps, is tested with the program itself.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

PARENT = "ACTVEC_TESTS_WARM_PARENT"
SERVER = "from actvec.server.program.main import main; main()"


class WarmProcess:
    """A running program, with the parts of `subprocess.Popen` that tests use."""

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


class WarmParent:
    """The process whose forks are the programs: one per run, however many processes test.

    It imports the server at the first request for a program, and ends with the run at the latest,
    when its standard input closes.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="actvec-warm-")
        os.environ[PARENT] = str(Path(self._folder.name, "socket"))
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.environ[PARENT])
        listening.listen()
        number = listening.fileno()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(number)], stdin=subprocess.PIPE, pass_fds=[number]
        )
        listening.close()

    def close(self) -> None:
        """End the parent, once every program has ended."""
        self._process.communicate()
        self._folder.cleanup()


def warm_start(
    program: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> WarmProcess:
    """Run `program`, Python code, with these arguments; standard error goes to `log`."""
    parent = Path(os.environ[PARENT])
    folder = Path(tempfile.mkdtemp(dir=parent.parent))
    output, ended = folder / "stdout", folder / "ended"
    os.mkfifo(output)
    request = {
        "program": program,
        "arguments": list(arguments),
        "environment": dict(environment),
        "folder": os.getcwd(),
        "output": str(output),
        "log": str(log),
        "ended": str(ended),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(parent))
        with connection.makefile("rw") as both:
            both.write(f"{json.dumps(request)}\n")
            both.flush()
            pid = int(both.readline())
    return WarmProcess(pid, output, ended)


def _fork_on_request(listening: socket.socket) -> None:
    """Run the parent: one program per connection, after the imports."""
    # As in `main`, before grpc is imported.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    imported = False
    while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        if not imported:
            from actvec.server.program.main import import_server  # noqa: PLC0415

            import_server()
            importlib.import_module("actvec.client.cli")
            _load_demo()
            imported = True
        # Nobody waits for the keepers.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep(connection)
            return
        connection.close()


def _load_demo() -> None:
    """Load the demo model for all programs that serve it without any option of the model."""
    import torch  # noqa: PLC0415

    from actvec.server.config import ModelOptions  # noqa: PLC0415
    from actvec.server.engine import memory  # noqa: PLC0415
    from actvec.server.program import engines  # noqa: PLC0415

    if torch.backends.cuda.is_built():
        # A GPU cannot be used in a fork of a process that has used it.
        return
    load, measure, demo = engines.load_engine, memory.token_bytes, ModelOptions()
    threads = torch.get_num_threads()
    # With more, torch starts threads, which forks lack.
    torch.set_num_threads(1)
    found = load(demo)
    size = measure(found[0])
    torch.set_num_threads(threads)

    def load_engine(options: Any, document_tokens: int | None = None) -> Any:
        asked = options, document_tokens
        return found if asked == (demo, None) else load(*asked)

    engines.load_engine = load_engine
    memory.token_bytes = lambda engine: size if engine is found[0] else measure(engine)


def _keep(connection: socket.socket) -> None:
    """Fork the program, send its pid, and send its exit code when it ends."""
    with connection.makefile() as requests:
        request = json.loads(requests.readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request)
        return
    with connection:
        connection.sendall(f"{pid}\n".encode())
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
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["actvec-server", *request["arguments"]]
    code = None
    try:
        exec(request["program"], {"__name__": "__main__"})  # noqa: S102 - the tests' own code
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            raise
    _end(code or 0)


def _end(code: int) -> NoReturn:
    """End as the interpreter does, but for taking down all modules: threads, `atexit`, output."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _fork_on_request(socket.socket(fileno=int(sys.argv[1])))
