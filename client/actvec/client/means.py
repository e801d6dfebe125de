"""Corpus means as a program sees them: records, and how a job that makes one is going."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.vectors import Truncation


@dataclass(frozen=True)
class MeanModel:
    """The model whose states were averaged.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        tokenizer_sha256: SHA-256 of the tokenizer's canonical JSON.
        dtype: dtype of the weights.
        layers: The blocks, from 0, whose states were averaged.
        hook: The hook whose states were taken after each of them.
    """

    model: str
    revision: str
    tokenizer_sha256: str
    dtype: str
    layers: tuple[int, ...]
    hook: str


@dataclass(frozen=True)
class Skipped:
    """Documents that a mean was made without, for one reason.

    Attributes:
        reason: Name of a google.rpc code, for example `INVALID_ARGUMENT`.
        documents: How many.
        first_message: What was wrong with the first of them.
        first_id: The id of the first of them.
    """

    reason: str
    documents: int
    first_message: str
    first_id: str


@dataclass(frozen=True)
class CorpusMean:
    """The record of a mean that a server keeps.

    Attributes:
        id: Identifies it: derived from its content.
        name: The name it was given.
        sha256: SHA-256 of its safetensors file, in hexadecimal.
        size_bytes: Bytes of that file.
        model: What was averaged; None for a mean made elsewhere that does not say.
        prepend_bos: Whether BOS came first.
        truncation: What happened to documents over the context.
        documents: Documents in the mean; 0 where unknown.
        tokens: Tokens in the mean; 0 where unknown.
        skipped: Documents left out, by reason.
        d_model: D, the residual width.
        max_tokens: Positions from the end that it has.
        has_counts: Whether the number of documents behind each position is known.
        has_variance: Whether second moments are kept.
        created_at: When it was finished, UTC.
        actvec_version: Version of actvec that made it; empty for a mean made elsewhere.
        corpus_sha256: Names its documents and their order; empty where unknown.
    """

    id: str
    name: str
    sha256: str
    size_bytes: int
    model: MeanModel | None
    prepend_bos: bool
    truncation: Truncation
    documents: int
    tokens: int
    skipped: tuple[Skipped, ...]
    d_model: int
    max_tokens: int
    has_counts: bool
    has_variance: bool
    created_at: datetime
    actvec_version: str
    corpus_sha256: str

    @property
    def skipped_documents(self) -> int:
        """Documents left out, for whatever reason."""
        return sum(skipped.documents for skipped in self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON takes it."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}


@dataclass(frozen=True, eq=False)
class MeanFile:
    """The safetensors file of a mean.

    Attributes:
        record: What the server says of it.
        content: Its bytes, which `safetensors.numpy.load` reads: `corpus_mean` `[D, max_tokens]`
            float32, whose column `j` is distance `j` from the end, and, where known, `counts`
            `[max_tokens]` int64, the documents behind each.
    """

    record: CorpusMean
    content: bytes = field(repr=False)

    @property
    def mean(self) -> NDArray[np.float32]:
        """The mean at each distance from the end, float32 `[max_tokens, D]`."""
        return read_mean(self.content)

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """Documents behind each distance, int64 `[max_tokens]`; None where they are not known."""
        from safetensors.numpy import load  # noqa: PLC0415 - as in `read_mean`

        counts = load(self.content).get("counts")
        return None if counts is None else counts.astype(np.int64)


@dataclass(frozen=True)
class MeanProgress:
    """How a job is going.

    Attributes:
        documents: Documents in the sums since the job began, durable or not.
        tokens: Their tokens.
        skipped: Documents left out since the job began.
        committed: Documents, added or left out, that the server has made durable.
        tokens_per_second: Of this connection.
    """

    documents: int
    tokens: int
    skipped: int
    committed: int
    tokens_per_second: float


@dataclass(frozen=True)
class MeanSettings:
    """How a job turns documents into a mean; a job is reopened with the same.

    Attributes:
        job: Name of the job: letters, digits, `.`, `_` and `-`, at most 64.
        name: Name of the finished mean, of the same form.
        truncation: What happens to a document over the context; one that is an `error` is left
            out and counted as skipped.
        prepend_bos: Whether BOS comes first; None for BOS if the tokenizer has one.
        variance: Whether second moments are kept too.
        take_over: Whether to take the job from another client that fell silent.
    """

    job: str
    name: str
    truncation: Truncation = "error"
    prepend_bos: bool | None = None
    variance: bool = False
    take_over: bool = False


def read_mean(content: bytes) -> NDArray[np.float32]:
    """The mean in a safetensors file, by distance from the end, float32 `[max_tokens, D]`.

    Raises:
        InvalidArgument: it is no such file, or a number in it is not finite.
    """
    # Only whoever reads a file pays for its library.
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    try:
        mean = load(content)["corpus_mean"]
    except (SafetensorError, KeyError) as error:
        raise InvalidArgument(
            f"this is no file of a corpus mean, safetensors with a tensor corpus_mean: {error}"
        ) from error
    if mean.ndim != 2:
        raise InvalidArgument(f"corpus_mean is [D, max_tokens], not {list(mean.shape)}")
    # What is too large for a float32 becomes infinite, and is refused as that.
    with np.errstate(over="ignore"):
        by_distance = np.ascontiguousarray(mean.T, dtype=np.float32)
    finite = np.isfinite(by_distance).all(axis=1)
    if not finite.all():
        raise InvalidArgument(
            f"corpus_mean is not finite at distance {int(finite.argmin())} from the end: it would"
            " spoil every vector that it is subtracted from"
        )
    return by_distance
