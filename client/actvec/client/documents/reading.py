"""How far a job is through the bytes of its source, and how long the rest will take."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from actvec.client.documents.source import DocumentSource
from actvec.client.records.vectors import Document, Failure


@dataclass(frozen=True)
class Reading:
    """How far a job is through its source.

    Attributes:
        input_bytes: Bytes of the input; None if unknown.
        done_bytes: Bytes of the input that are done.
        resumed_bytes: How many of `done_bytes` were done when the job resumed.
        seconds: Seconds since the job started or resumed.
    """

    input_bytes: int | None = None
    done_bytes: int = 0
    resumed_bytes: int = 0
    seconds: float = 0.0

    @property
    def fraction(self) -> float | None:
        """The finished fraction of the input, from 0 to 1; None if unknown."""
        if self.input_bytes is None:
            return None
        return min(self.done_bytes / self.input_bytes, 1.0) if self.input_bytes else 1.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate of the seconds left; None if unknown.

        It relies on bytes of the input, which hold a steady number of tokens, not on documents: in
        a corpus sorted by length, they take longer and longer.
        """
        read = self.done_bytes - self.resumed_bytes
        if self.input_bytes is None or read <= 0:
            return None
        return self.seconds * max(self.input_bytes - self.done_bytes, 0) / read


class FollowedDocuments:
    """The documents of a source, in order, and how far a job is through their bytes.

    Another thread may draw the documents than the one that asks for the reading.
    """

    def __init__(self, source: DocumentSource) -> None:
        self._source = source
        # Bytes up to each document that was drawn and is not done.
        self._ends: deque[int] = deque()
        self._done = self._done_bytes = 0
        self._resumed_bytes: int | None = None
        self._started = time.monotonic()

    def __iter__(self) -> Iterator[Document | Failure]:
        for located in self._source.scan():
            self._ends.append(located.end)
            yield located.document

    def reading(self, done: int, resumed: int) -> Reading:
        """How far the job is.

        Args:
            done: Documents that are done, those of earlier runs included.
            resumed: Documents that earlier runs did.
        """
        if self._resumed_bytes is None:
            self._advance(min(done, resumed))
            if self._done == resumed:
                self._resumed_bytes = self._done_bytes
        self._advance(done)
        before = self._done_bytes if self._resumed_bytes is None else self._resumed_bytes
        seconds = time.monotonic() - self._started
        return Reading(self._source.size, self._done_bytes, before, seconds)

    def _advance(self, done: int) -> None:
        while self._done < done and self._ends:
            self._done_bytes = self._ends.popleft()
            self._done += 1
