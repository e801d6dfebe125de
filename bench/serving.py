"""A server in its own process, for measurements from outside."""

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
    """A ready `actvec-server`.

    Attributes:
        pid: Its process.
        target: Its HOST:PORT.
    """

    pid: int
    target: str


@contextmanager
def serving(model: Path | None, *options: str) -> Iterator[ServerProcess]:
    """Serve a model's directory, or the demo model, on a free port."""
    command = [
        sys.executable,
        "-m",
        "actvec.server.program.main",
        f"--model={model or 'demo'}",
        "--port=0",
    ]
    with tempfile.TemporaryDirectory(prefix="actvec-bench-") as folder:
        command += [f"--data-dir={folder}/data", *options]
        # The server logs each call, which a benchmark should not print.
        log = Path(folder, "log")
        with log.open("w") as errors:
            server = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            line = next((line for line in server.stdout or () if line.startswith(READY)), None)
            if line is None:
                code = server.wait()
                raise SystemExit(f"actvec-server ended with exit code {code}: {log.read_text()}")
            yield ServerProcess(server.pid, line.removeprefix(READY).strip())
        finally:
            server.kill()
            server.wait()
