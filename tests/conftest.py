"""Real servers on free ports, for all tests."""

import importlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.browser import Looking
from tests.certificates import Authority
from tests.clock import CLOCK, Clock
from tests.local_hub import LocalHub
from tests.s3_server import S3Server
from tests.warm import PARENT, SERVER, WarmParent, WarmProcess, warm_start

MEMORY = Path("/dev/shm")  # noqa: S108 - a file system, and not a file in it
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 << 30:
    # Temporary files in memory, also for the processes that tests start. An fsync on a disk takes
    # milliseconds, and tests check only that it happens, and in which order.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# A busy machine is no fault, and the same code has the same outcome on every run.
settings.register_profile("any machine", deadline=None, derandomize=True)
settings.load_profile("any machine")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that `make soak` and `make hostile` set."""
    parser.addoption("--faults", type=int, default=6, help="Faults to inject in tests/faults.")
    parser.addoption("--fault-seed", type=int, default=0, help="Which faults, and when.")
    parser.addoption("--soak-minutes", type=float, default=0.1, help="How long tests/faults soak.")
    parser.addoption("--long-form", action="store_true", help="Attack tests/hostile at length.")


def pytest_configure(config: pytest.Config) -> None:
    """Start the parent of all servers, in the process from which all others of the run come."""
    # A shell's job in the background ignores interrupts, and so would the programs of tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if PARENT not in os.environ:
        config.add_cleanup(WarmParent().close)


# Long modules that the alphabet would leave to one process at the end, when the others are done.
EARLY = ("tests/zoo/", "tests/test_wheel.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let long modules go first."""
    items.sort(key=lambda item: not item.nodeid.startswith(EARLY))


@pytest.fixture(scope="session")
def browser() -> Iterator[Looking]:
    """A browser that the tests of pages share."""
    looking = Looking()
    yield looking
    looking.close()


@pytest.fixture(scope="session")
def clock() -> Clock:
    """The clock, to set forward."""
    return CLOCK


@dataclass
class RunningServer:
    """A ready `actvec-server` process."""

    process: WarmProcess
    target: str
    log_file: Path

    @property
    def log(self) -> str:
        """Its output on standard error so far."""
        return self.log_file.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        """Signal the process, wait for its end, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


class NotStartedError(Exception):
    """An `actvec-server` ended before it was ready: its exit code and its output."""

    def __init__(self, code: int, output: str, log: str) -> None:
        super().__init__(f"actvec-server ended with exit code {code}: {log}")
        self.code, self.output, self.log = code, output, log


StartServer = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start `actvec-server` with options; kill servers that still run at the end.

    Raises:
        NotStartedError: it ended.
    """
    running: list[RunningServer] = []

    def start(
        *options: str,
        port: int = 0,
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        program: str = SERVER,
    ) -> RunningServer:
        data_dir = data_dir or tmp_path_factory.mktemp("data")
        log_file = tmp_path_factory.mktemp("log") / "stderr"
        arguments = [f"--port={port}", f"--data-dir={data_dir}", *options]
        process = warm_start(program, arguments, os.environ | (env or {}), log_file)
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith("actvec-server ready on "):
                running.append(RunningServer(process, line.split()[-1], log_file))
                return running[-1]
        raise NotStartedError(process.wait(), output, log_file.read_text())

    yield start
    for server in running:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def demo_server(start_server: StartServer) -> RunningServer:
    """A server of the demo model that all tests share."""
    return start_server("--model=demo")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs certificates for servers on this machine and for their callers."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real tokenizer and texts; skip the test if they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the real tokenizer and C4 documents in {SHARED_DATA}, which is absent")
    return SHARED_DATA


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A running S3 server with a bucket, for this process and those that it starts."""
    server = S3Server()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.create_bucket()
    yield server
    server.stop()


@pytest.fixture
def local_hub() -> Iterator[LocalHub]:
    """A model hub on this machine, without repositories."""
    hub = LocalHub()
    yield hub
    hub.stop()


@pytest.fixture
def ask_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Point this process to a hub, with an empty cache, and with variables such as `HF_TOKEN`.

    Returns the variables, for other processes.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - most tests need none of it

    def ask(hub: LocalHub, **variables: str) -> dict[str, str]:
        names = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), **variables}
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        # The module reads them at its import.
        importlib.reload(constants)
        return names

    yield ask
    monkeypatch.undo()
    importlib.reload(constants)
