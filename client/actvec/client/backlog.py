"""The documents of a job that its server has not made durable, in order, ready to be sent again."""

from collections import deque
from dataclasses import dataclass

from actvec.client import means_wire, wire
from actvec.client.errors import ActvecError
from actvec.client.model import UNLIMITED, Limits
from actvec.client.vectors import Document, Failure
from actvec.v1 import means_pb2, vectors_pb2

# What one message holds.
_MESSAGE_DOCUMENTS = 64
_MESSAGE_BYTES = 1 << 20

# What is kept at most. The server commits every few seconds, or after 10,000 documents; this much
# is more than any model computes in that time, so that nothing waits for a commit.
_KEPT_BYTES = 64 << 20
_KEPT_DOCUMENTS = 30_000


@dataclass(frozen=True)
class _Numbered:
    """A document as it travels, or that one is left out.

    Attributes:
        message: Holds its number.
        size: Bytes of the message.
        corpus: Names the documents up to and with this one.
    """

    message: vectors_pb2.Document | means_pb2.CorpusMeanSkip
    size: int
    corpus: bytes


class Backlog:
    """Numbered documents from the last commit on; those at the front are on their way.

    Attributes:
        limits: What the server refuses beyond.
        numbered: How many documents there have been: the next one's number.
        committed: How many the server has made durable; they are let go.
        committed_corpus: Names those, as `CorpusMeanCommit.corpus_sha256`.
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
        """Documents that are not durable."""
        return len(self._sent) + len(self._unsent)

    @property
    def unsent(self) -> bool:
        """Whether there is something to send."""
        return bool(self._unsent)

    @property
    def full(self) -> bool:
        """Whether a commit should be awaited before there is more."""
        return self._bytes >= _KEPT_BYTES or len(self) >= _KEPT_DOCUMENTS

    def add(self, item: Document | Failure | str) -> None:
        """Number one more document; one that cannot be sent is left out, under its number.

        Raises:
            TypeError: it is no document.
        """
        item = Document(str(self.numbered), item) if isinstance(item, str) else item
        if not isinstance(item, Document | Failure):
            raise TypeError(f"a mean takes Document or str, not {type(item).__name__}")
        self._corpus = means_wire.name_corpus(self._corpus, item)
        message = self._encode(item)
        self._unsent.append(_Numbered(message, message.ByteSize(), self._corpus))
        self._bytes += self._unsent[-1].size
        self.numbered += 1

    def next_message(self) -> means_pb2.StreamCorpusMeanRequest:
        """The next documents, from now on under way; call it where `unsent`."""
        limit = min(_MESSAGE_BYTES, (self.limits.max_message_bytes or _MESSAGE_BYTES) // 2)
        documents: list[vectors_pb2.Document] = []
        size = 0
        while self._unsent and len(documents) < _MESSAGE_DOCUMENTS:
            message = self._unsent[0].message
            if isinstance(message, means_pb2.CorpusMeanSkip):
                if documents:
                    break
                self._sent.append(self._unsent.popleft())
                return means_pb2.StreamCorpusMeanRequest(skip=message)
            size += self._unsent[0].size
            if documents and size > limit:
                break
            self._sent.append(self._unsent.popleft())
            documents.append(message)
        return means_pb2.StreamCorpusMeanRequest(
            documents=means_pb2.CorpusMeanDocuments(documents=documents)
        )

    def rewind(self) -> None:
        """Nothing that is kept is on its way any more: the connection broke."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()

    def commit(self, documents: int) -> None:
        """Let go of the documents below a number; more than there are lets go of all."""
        while self.committed < min(documents, self.numbered):
            first = self._sent.popleft() if self._sent else self._unsent.popleft()
            self._bytes -= first.size
            self.committed_corpus = first.corpus
            self.committed += 1

    def _encode(self, item: Document | Failure) -> vectors_pb2.Document | means_pb2.CorpusMeanSkip:
        if isinstance(item, Failure):
            return means_wire.encode_skip(item, self.numbered, None)
        try:
            return wire.encode_document(item, self.numbered, self.limits).message
        except ActvecError as error:
            failure = Failure.of(error, item.id, self.numbered)
            return means_wire.encode_skip(failure, self.numbered, item.text)
