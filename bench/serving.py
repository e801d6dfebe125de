"""A server in a process of its own, for measurements from outside."""

import subprocess
import sys
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
def serving(model: Path, *options: str) -> Iterator[ServerProcess]:
    """Serve a model's directory on a free port; its data goes there too."""
    command = [sys.executable, "-m", "actvec.server.main", f"--model={model}", "--port=0"]
    command += [f"--data-dir={model}/data", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        line = next((line for line in server.stdout or () if line.startswith(READY)), None)
        if line is None:
            raise SystemExit(f"actvec-server ended with exit code {server.wait()}")
        yield ServerProcess(server.pid, line.removeprefix(READY).strip())
    finally:
        server.kill()
        server.wait()
