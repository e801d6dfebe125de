"""Limits on concurrent calls, in total and per caller."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from actvec.server.config import Limits
from actvec.server.errors import BusyError

_SERVICE = "/actvec.v1.ActivationVectorService/"
_BULK = {f"{_SERVICE}StreamVectors", f"{_SERVICE}StreamCorpusMean"}
# Supervisors ask for it and restart servers that do not answer; a busy server is healthy.
_ALWAYS = "/grpc.health.v1.Health/Check"


class Admission:
    """Admits calls up to the limits.

    A stream is taken to hold as many documents as it may from its beginning to its end, so that
    what is admitted never has to be refused later.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._unary = 0
        self._streams = 0
        self._documents: Counter[str] = Counter()

    @contextmanager
    def of_server(self, method: str, *, streaming: bool) -> Iterator[None]:
        """Hold one of the server's places for a call while the block runs.

        Args:
            method: The path of the method.
            streaming: Whether messages stream, either way.

        Raises:
            BusyError: all are taken.
        """
        if method == _ALWAYS:
            yield
            return
        if streaming and self._streams >= self._limits.streams:
            raise BusyError(
                f"the server has {self._streams} streams open, which is its limit; try "
                "again in a moment"
            )
        if not streaming and self._unary >= self._limits.calls:
            raise BusyError(
                f"the server is running {self._unary} calls, which is its limit; try "
                "again in a moment, or send many documents through StreamVectors"
            )
        self._count(1, streaming=streaming)
        try:
            yield
        finally:
            self._count(-1, streaming=streaming)

    @contextmanager
    def of_caller(self, caller: str, method: str) -> Iterator[None]:
        """Hold places for the documents of a call, of those that its caller has.

        Args:
            caller: What tells a caller from others.
            method: The path of the method.

        Raises:
            BusyError: the caller has too many calls already.
        """
        if method == _ALWAYS:
            yield
            return
        documents = self._limits.stream_documents if method in _BULK else 1
        held = self._documents[caller]
        if held + documents > max(self._limits.caller_documents, documents):
            raise BusyError(
                f"your calls hold places for {held} documents, this one needs "
                f"{documents} more, and your limit is {self._limits.caller_documents}. "
                "Wait for a call to end"
            )
        self._documents[caller] += documents
        try:
            yield
        finally:
            self._documents[caller] -= documents
            if not self._documents[caller]:
                del self._documents[caller]

    def _count(self, one: int, *, streaming: bool) -> None:
        self._streams += one if streaming else 0
        self._unary += 0 if streaming else one
