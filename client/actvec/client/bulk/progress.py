"""How far a job is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JobProgress:
    """What has become of a job's documents.

    Attributes:
        vectors: Documents with a vector.
        failed: Documents without one.
        tokens: Tokens of the documents with a vector.
        shortened: Documents with a vector that are longer than their corpus mean; see
            `Row.shortened`.
        resumed_vectors: Those of `vectors` that were there when the job was resumed.
        resumed_failed: Those of `failed`, likewise.
        resumed_tokens: Those of `tokens`, likewise.
        input_bytes: Bytes of the input that are to be read; None where that is unknown.
        done_bytes: Those of them that are done.
        resumed_bytes: Those of `done_bytes` that were done when the job was resumed.
        seconds: Since the job was begun or resumed.
    """

    vectors: int = 0
    failed: int = 0
    tokens: int = 0
    shortened: int = 0
    resumed_vectors: int = 0
    resumed_failed: int = 0
    resumed_tokens: int = 0
    input_bytes: int | None = None
    done_bytes: int = 0
    resumed_bytes: int = 0
    seconds: float = 0.0

    @property
    def documents(self) -> int:
        """Documents that are done, with a vector or without."""
        return self.vectors + self.failed

    @property
    def fraction(self) -> float | None:
        """How much of the input is done, from 0 to 1; None where that is unknown."""
        if self.input_bytes is None:
            return None
        return min(self.done_bytes / self.input_bytes, 1.0) if self.input_bytes else 1.0

    @property
    def documents_per_second(self) -> float:
        """The rate since the job was begun or resumed."""
        done = self.documents - self.resumed_vectors - self.resumed_failed
        return done / max(self.seconds, 1e-9)

    @property
    def tokens_per_second(self) -> float:
        """The rate since the job was begun or resumed."""
        return (self.tokens - self.resumed_tokens) / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take; None where that is unknown.

        Reckoned from bytes of the input, of which tokens are a steady fraction, not from documents:
        those of a corpus sorted by length take ever longer.
        """
        read = self.done_bytes - self.resumed_bytes
        if self.input_bytes is None or read <= 0:
            return None
        return self.seconds * max(self.input_bytes - self.done_bytes, 0) / read
