"""A server in a process of its own, for measurements from outside."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY = "actvec-server ready on "


@dataclass(frozen=True)
class ServerProcess:
    """An `actvec-server` that is ready.

    Attributes:
        pid: Its process.
        target: Its HOST:PORT.
    """

    pid: int
    target: str


@contextmanager
def serving(model: Path | None, *options: str) -> Iterator[ServerProcess]:
    """Serve a model's directory, or the demo model, on a free port."""
    command = [sys.executable, "-m", "actvec.server.main", f"--model={model or 'demo'}", "--port=0"]
    data = tempfile.TemporaryDirectory(prefix="actvec-bench-")
    command += [f"--data-dir={data.name}", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        line = next((line for line in server.stdout or () if line.startswith(READY)), None)
        if line is None:
            raise SystemExit(f"actvec-server ended with exit code {server.wait()}")
        yield ServerProcess(server.pid, line.removeprefix(READY).strip())
    finally:
        server.kill()
        server.wait()
        data.cleanup()
