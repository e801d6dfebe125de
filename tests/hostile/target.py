"""A server under attack, and checks that it is unharmed."""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    ExtractVectorRequest,
    ExtractVectorResponse,
    VectorSettings,
)
from tests.conftest import RunningServer

SERVICE = "/actvec.v1.ActivationVectorService"

# Log lines that somebody would have to look into.
_TROUBLE = re.compile(r"Traceback|Exception ignored|never retrieved| (ERROR|CRITICAL) |assertion")

# Codes that no call may end with: they mean an unforeseen error.
UNFORESEEN = frozenset({"UNKNOWN", "INTERNAL", "DATA_LOSS"})

# Allowed growth of resident memory from the first half to the second, if more happened at once: a
# heap keeps what it had.
_ALLOWED_MIB = 32.0
# Allowed growth of descriptors: a connection of the check itself may still be closing.
_ALLOWED_FILES = 2
# Seconds to clear the remains of an attack.
_CLEARING = 30.0


@dataclass(frozen=True)
class Footprint:
    """Resources of a process.

    Attributes:
        mib: Resident memory, MiB.
        files: Open file descriptors.
    """

    mib: float
    files: int


@dataclass(frozen=True)
class Endured:
    """A finished attack: one row of the table in docs/reliability.md.

    Attributes:
        attack: Its name.
        amount: Its size.
        outcomes: How its calls or connections ended, most frequent first.
        before: The server's resources before it.
        half: After the first half of it.
        after: After all of it.
    """

    attack: str
    amount: int
    outcomes: Counter[str]
    before: Footprint
    half: Footprint
    after: Footprint

    def row(self) -> str:
        """The row."""
        memory = " / ".join(f"{print_.mib:.0f}" for print_ in self._prints)
        files = " / ".join(str(print_.files) for print_ in self._prints)
        ends = ", ".join(f"{count:,} {name}" for name, count in self.outcomes.most_common())
        return f"| {self.attack} | {self.amount:,} | {ends} | {memory} | {files} |"

    @property
    def _prints(self) -> tuple[Footprint, Footprint, Footprint]:
        return self.before, self.half, self.after


HEADER = (
    "| attack | amount | how it ended | memory, MiB: before / half / after |"
    " descriptors: before / half / after |\n| --- | ---: | --- | --- | --- |"
)


@dataclass
class Target:
    """A server under attack.

    Attributes:
        server: The process.
        endured: The finished attacks.
    """

    server: RunningServer
    endured: list[Endured] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._vector = self._extract()

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        host, _, port = self.server.target.rpartition(":")
        return host, int(port)

    def endure(self, attack: str, amount: int, storm: Callable[[int], Counter[str]]) -> Endured:
        """Attack the server, and check that it is unharmed.

        Args:
            attack: The attack's name.
            amount: Number of calls, connections or files.
            storm: Runs that many and returns how they ended.
        """
        before = self._calm()
        outcomes = storm(amount // 2)
        half = self._calm(before)
        outcomes += storm(amount - amount // 2)
        after = self._calm(half, half.mib + _ALLOWED_MIB)
        endured = Endured(attack, amount, outcomes, before, half, after)
        self.endured.append(endured)
        assert not UNFORESEEN & outcomes.keys(), outcomes
        assert after.files <= half.files + _ALLOWED_FILES, endured
        assert after.mib <= half.mib + _ALLOWED_MIB, endured
        return endured

    def assert_unharmed(self) -> None:
        """Check that it runs, reports so, computes the same vector, and logs no alarm."""
        assert self.server.process.poll() is None, self.server.log[-4000:]
        health = health_pb2.HealthCheckResponse.FromString(
            self._answer("/grpc.health.v1.Health/Check", b"")
        )
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert self._extract() == self._vector
        alarming = [line for line in self._new_lines() if _TROUBLE.search(line)]
        assert not alarming, "\n".join(alarming[:40])

    def _calm(self, held: Footprint | None = None, mib: float = math.inf) -> Footprint:
        """Wait until the server is unharmed, and closed and freed what it dropped; return its
        resources.
        """
        self.assert_unharmed()
        deadline = time.monotonic() + _CLEARING
        while True:
            now = self._footprint()
            cleared = held is None or (now.files <= held.files + _ALLOWED_FILES and now.mib <= mib)
            if cleared or time.monotonic() > deadline:
                return now
            time.sleep(0.1)

    def _footprint(self) -> Footprint:
        process = Path(f"/proc/{self.server.process.pid}")
        pages = int((process / "statm").read_text().split()[1])
        mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return Footprint(mib, len(os.listdir(process / "fd")))

    def _extract(self) -> bytes:
        """Extract a vector, over a new connection."""
        request = ExtractVectorRequest(
            text="The tide comes back twice a day.", settings=VectorSettings(mode=MODE_LONG)
        )
        answer = self._answer(f"{SERVICE}/ExtractVector", request.SerializeToString())
        return ExtractVectorResponse.FromString(answer).vector.vector.data

    def _answer(self, method: str, request: bytes) -> bytes:
        """Return the answer to a call; retry while gRPC cancels calls because too many wait."""
        deadline = time.monotonic() + _CLEARING
        while True:
            with grpc.insecure_channel(self.server.target, _OWN_CONNECTION) as channel:
                try:
                    return bytes(channel.unary_unary(method)(request, timeout=60))
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.CANCELLED or time.monotonic() > deadline:
                        raise
            time.sleep(0.1)

    def _new_lines(self) -> Iterator[str]:
        """The server's output on standard error since the last call."""
        self._read = getattr(self, "_read", 0)
        with self.server.log_file.open() as log:
            log.seek(self._read)
            yield from log
            self._read = log.tell()


_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
