"""The documents of a job that its server has not made durable, in order, ready to be resent."""

from collections import deque
from dataclasses import dataclass

from actvec.client.errors import ActvecError
from actvec.client.messages import means as means_wire
from actvec.client.messages.documents import encode_document
from actvec.client.records.inputs import Streamable, as_document
from actvec.client.records.model import UNLIMITED, Limits
from actvec.client.records.vectors import Document, Failure
from actvec.client.streams.batching import batch_by_size
from actvec.v1 import means_pb2, vectors_pb2

# The most to keep. The server commits every few seconds, or after 10,000 documents; no model
# computes this much in that time, so nothing waits for a commit.
_KEPT_BYTES = 64 << 20
_KEPT_DOCUMENTS = 30_000


@dataclass(frozen=True)
class _Numbered:
    """A document as it travels, or the skip of one.

    Attributes:
        message: The message, with the document's number.
        size: Bytes of the message.
        corpus: Digest of the documents up to and including this one.
    """

    message: vectors_pb2.Document | means_pb2.CorpusMeanSkip
    size: int
    corpus: bytes


class Uncommitted:
    """Numbered documents after the last commit; those at the front have been sent.

    Attributes:
        limits: The server's limits.
        numbered: Number of documents so far, and the number of the next.
        committed: How many of them the server has made durable; these are dropped.
        committed_corpus: Digest of those, as in `CorpusMeanCommit.corpus_sha256`.
    """

    def __init__(self) -> None:
        self.limits: Limits = UNLIMITED
        self.numbered = 0
        self.committed = 0
        self.committed_corpus = means_wire.EMPTY_CORPUS
        self._corpus = means_wire.EMPTY_CORPUS
        self._sent: deque[_Numbered] = deque()
        self._unsent: deque[_Numbered] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Number of documents that are not durable."""
        return len(self._sent) + len(self._unsent)

    @property
    def unsent(self) -> bool:
        """Whether there is something to send."""
        return bool(self._unsent)

    @property
    def full(self) -> bool:
        """Whether to wait for a commit before adding more."""
        return self._bytes >= _KEPT_BYTES or len(self) >= _KEPT_DOCUMENTS

    def add(self, given: Streamable) -> None:
        """Number one more document; one that cannot travel becomes a skip under its number.

        Raises:
            TypeError: it is not a document.
        """
        item = as_document(given, self.numbered)
        self._corpus = means_wire.name_corpus(self._corpus, item)
        message = self._encode(item)
        self._unsent.append(_Numbered(message, message.ByteSize(), self._corpus))
        self._bytes += self._unsent[-1].size
        self.numbered += 1

    def next_message(self) -> means_pb2.StreamCorpusMeanRequest:
        """Return the next documents and count them as sent. Call it only if `unsent`."""
        batch = batch_by_size(
            self._unsent,
            self.limits,
            fits=lambda one: isinstance(one.message, vectors_pb2.Document),
        )
        # A message holds documents or one skip.
        skip = None if batch else self._unsent.popleft()
        self._sent.extend([skip] if skip else batch)
        if skip and isinstance(skip.message, means_pb2.CorpusMeanSkip):
            return means_pb2.StreamCorpusMeanRequest(skip=skip.message)
        documents = [one.message for one in batch if isinstance(one.message, vectors_pb2.Document)]
        return means_pb2.StreamCorpusMeanRequest(
            documents=means_pb2.CorpusMeanDocuments(documents=documents)
        )

    def rewind(self) -> None:
        """Count nothing as sent any more: the connection broke."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()

    def commit(self, documents: int) -> None:
        """Drop the documents below a number, or all if it exceeds theirs."""
        while self.committed < min(documents, self.numbered):
            first = self._sent.popleft() if self._sent else self._unsent.popleft()
            self._bytes -= first.size
            self.committed_corpus = first.corpus
            self.committed += 1

    def _encode(self, item: Document | Failure) -> vectors_pb2.Document | means_pb2.CorpusMeanSkip:
        if isinstance(item, Failure):
            return means_wire.encode_skip(item, self.numbered, None)
        try:
            return encode_document(item, self.numbered, self.limits).message
        except ActvecError as error:
            failure = Failure.of(error, item.id, self.numbered)
            return means_wire.encode_skip(failure, self.numbered, item)
