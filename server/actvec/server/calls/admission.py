"""How many calls run at a time, of everybody and of one caller."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from actvec.server.config import Limits
from actvec.server.errors import BusyError

_SERVICE = "/actvec.v1.ActivationVectorService/"
_BULK = {f"{_SERVICE}StreamVectors", f"{_SERVICE}StreamCorpusMean"}
# Who asks for it restarts servers that do not answer, and a busy one is well.
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
    def admit(self, caller: str, method: str, *, streaming: bool) -> Iterator[None]:
        """Hold a place for a call while the block runs.

        Args:
            caller: What tells a caller from others.
            method: The path of the method.
            streaming: Whether messages stream, either way.

        Raises:
            BusyError: the server, or this caller, has too many calls already.
        """
        if method == _ALWAYS:
            yield
            return
        documents = self._limits.stream_documents if method in _BULK else 1
        self._check(caller, documents, streaming=streaming)
        self._count(caller, documents, streaming=streaming)
        try:
            yield
        finally:
            self._count(caller, -documents, streaming=streaming)

    def _check(self, caller: str, documents: int, *, streaming: bool) -> None:
        limits = self._limits
        if streaming and self._streams >= limits.streams:
            raise BusyError(
                f"the server has {self._streams} streams open and takes no more; try again in a "
                "moment"
            )
        if not streaming and self._unary >= limits.calls:
            raise BusyError(
                f"the server is at {self._unary} calls and takes no more at a time; try again in a "
                "moment, or send many documents through StreamVectors"
            )
        if self._documents[caller] + documents > max(limits.caller_documents, documents):
            raise BusyError(
                f"your calls hold places for {self._documents[caller]} documents and this one "
                f"needs {documents} more; {limits.caller_documents} are yours at a time. Wait for "
                "a call to end"
            )

    def _count(self, caller: str, documents: int, *, streaming: bool) -> None:
        one = 1 if documents > 0 else -1
        self._streams += one if streaming else 0
        self._unary += 0 if streaming else one
        self._documents[caller] += documents
        if not self._documents[caller]:
            del self._documents[caller]
