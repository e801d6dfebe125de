"""The progress of a job."""

from dataclasses import dataclass

from actvec.client.documents.reading import Reading


@dataclass(frozen=True)
class JobProgress(Reading):
    """The progress of a job; `fraction` and `seconds_left` too.

    Attributes:
        vectors: Documents with a vector.
        failed: Documents without one.
        tokens: Tokens of the documents with a vector.
        shortened: Documents with a vector that are longer than their corpus mean; see
            `Row.shortened`.
        durable: How many of `vectors` are durable.
        lost: Vectors of the last commit that were missing when the job resumed, and are computed
            again.
        lost_files: The files that held them, if known.
        repeated_ids: Documents that repeat the id of another, among the first 100,000.
        repeated_id: One such id.
        resumed_vectors: How many of `vectors` existed when the job resumed.
        resumed_failed: How many of `failed` had failed when the job resumed.
        resumed_tokens: How many of `tokens` belong to `resumed_vectors`.
        input_bytes: Bytes of the input; None if unknown.
        done_bytes: Bytes of the input that are done.
        resumed_bytes: How many of `done_bytes` were done when the job resumed.
        seconds: Seconds since the job started or resumed.
    """

    vectors: int = 0
    failed: int = 0
    tokens: int = 0
    shortened: int = 0
    durable: int = 0
    lost: int = 0
    lost_files: tuple[str, ...] = ()
    repeated_ids: int = 0
    repeated_id: str = ""
    resumed_vectors: int = 0
    resumed_failed: int = 0
    resumed_tokens: int = 0

    @property
    def documents(self) -> int:
        """Finished documents, with or without a vector."""
        return self.vectors + self.failed

    @property
    def documents_per_second(self) -> float:
        """The rate since the job started or resumed."""
        done = self.documents - self.resumed_vectors - self.resumed_failed
        return done / max(self.seconds, 1e-9)

    @property
    def tokens_per_second(self) -> float:
        """The rate since the job started or resumed."""
        return (self.tokens - self.resumed_tokens) / max(self.seconds, 1e-9)
