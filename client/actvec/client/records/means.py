"""Corpus means as users see them: records, files, and the progress of a job."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import FailedPrecondition, InvalidArgument
from actvec.client.records.display import record
from actvec.client.records.settings import Truncation
from actvec.client.records.stamp import Stamp

# Documents behind a position, on average, below which a mean says as much about its own documents
# as about the model: the error of a mean of 100 documents is a tenth of their spread.
ENOUGH_DOCUMENTS = 100


@dataclass(frozen=True)
class MeanModel:
    """The model behind a mean.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        tokenizer_sha256: SHA-256 of the tokenizer's canonical JSON.
        dtype: dtype of the weights.
        layers: Numbers of the averaged blocks, from 0.
        hook: Where in each block the states were captured.
        separate_layers: Whether each layer has its own mean; such a mean centers vectors of any of
            its layers.
    """

    model: str
    revision: str
    tokenizer_sha256: str
    dtype: str
    layers: tuple[int, ...]
    hook: str
    separate_layers: bool = False


@dataclass(frozen=True)
class Skipped:
    """Documents that a mean skipped, for one reason.

    Attributes:
        reason: Name of a google.rpc code, for example `INVALID_ARGUMENT`.
        documents: How many.
        first_message: The error of the first of them.
        first_id: The id of the first of them.
    """

    reason: str
    documents: int
    first_message: str
    first_id: str


@dataclass(frozen=True)
class CorpusMean:
    """The record of a mean on a server.

    Attributes:
        id: The mean's id, derived from its content.
        name: The mean's name.
        sha256: SHA-256 of its safetensors file, in hexadecimal.
        size_bytes: Bytes of that file.
        model: The model behind it; None for a mean made elsewhere whose file names none.
        prepend_bos: Whether BOS came first.
        truncation: How documents beyond the context were treated.
        documents: Documents in the mean; 0 if unknown.
        tokens: Tokens in the mean; 0 if unknown.
        skipped: Skipped documents, by reason.
        d_model: D, the residual width.
        max_tokens: Number of positions, counted from the end.
        has_counts: Whether it has the number of documents behind each position.
        has_variance: Whether it has second moments.
        created_at: When it was finished, UTC.
        actvec_version: Version of actvec that made it; empty for a mean made elsewhere.
        corpus_sha256: Digest of its documents in their order; empty if unknown.
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
    def documents_per_position(self) -> float | None:
        """Documents behind a position, on average over all positions; None if not known."""
        return self.tokens / self.max_tokens if self.has_counts else None

    @property
    def is_sparse(self) -> bool:
        """Whether fewer than `ENOUGH_DOCUMENTS` documents are behind a position, on average."""
        behind = self.documents_per_position
        return behind is not None and behind < ENOUGH_DOCUMENTS

    def __str__(self) -> str:
        """Its name and size in words: `my-corpus: 2 documents, 16 positions`."""
        documents = _count(self.documents, "document") if self.has_counts else "unknown documents"
        return f"{self.name}: {documents}, {_count(self.max_tokens, 'position')}"

    @property
    def skipped_documents(self) -> int:
        """Number of skipped documents, for any reason."""
        return sum(skipped.documents for skipped in self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}

    def _repr_html_(self) -> str:
        return record(str(self), self.to_dict())


@dataclass(frozen=True, eq=False)
class MeanFile:
    """The safetensors file of a mean.

    Examples:
        >>> file = client.download_mean("my-corpus")
        >>> file.mean.shape
        (2048, 512)

    Attributes:
        record: The server's record of it.
        content: Its bytes, for `safetensors.numpy.load`: `corpus_mean` `[D, max_tokens]` float32,
            or `[L, D, max_tokens]` for separate layers, with distance `j` from the end in column
            `j`; and, if known, `counts` `[max_tokens]` int64, the documents behind each position.
    """

    record: CorpusMean
    content: bytes = field(repr=False)

    @property
    def mean(self) -> NDArray[np.float32]:
        """The mean by distance from the end, float32 `[max_tokens, D]`, or `[L, max_tokens, D]`."""
        return read_mean(self.content)

    def mean_of(self, stamp: Stamp) -> NDArray[np.float32]:
        """The mean that centers vectors with a given stamp.

        Returns:
            `[max_tokens, D]` float32, or `[L, max_tokens, D]` if the vectors' layers are separate.

        Raises:
            FailedPrecondition: the mean is of other layers, or of another hook.
        """
        model, mean = self.record.model, self.mean
        if model is None:
            return mean
        fits = model.hook == stamp.hook and set(stamp.layers) <= set(model.layers)
        averaged = model.layers == stamp.layers and not stamp.separate_layers
        if not fits or not (model.separate_layers or averaged):
            raise FailedPrecondition(
                f"the mean {self.record.name} is of {describe_layers(model)}, and the vectors are"
                f" of {describe_layers(stamp)}; make a mean of separate layers that has them all"
            )
        if not model.separate_layers:
            return mean
        kept = mean[[model.layers.index(layer) for layer in stamp.layers]]
        # In float32 and in ascending order, as the server averages layers.
        return kept if stamp.separate_layers else np.mean(kept, axis=0)

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """Documents behind each distance, int64 `[max_tokens]`; None if unknown."""
        from safetensors.numpy import load  # noqa: PLC0415 - as in `read_mean`

        counts = load(self.content).get("counts")
        return None if counts is None else counts.astype(np.int64)


@dataclass(frozen=True)
class MeanProgress:
    """The progress of a job.

    Attributes:
        documents: Documents in the sums since the job started, durable or not.
        tokens: Their tokens.
        skipped: Documents skipped since the job started.
        committed: Documents, added or skipped, that the server has made durable.
        tokens_per_second: Rate of this connection.
    """

    documents: int
    tokens: int
    skipped: int
    committed: int
    tokens_per_second: float


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_layers(states: MeanModel | Stamp) -> str:
    """Layers and hook, in words: `layers 1, 2, 3 apart (resid_post)`."""
    layers = ", ".join(map(str, states.layers))
    apart = " apart" if states.separate_layers else ""
    return f"layers {layers}{apart} ({states.hook})"


def read_mean(content: bytes) -> NDArray[np.float32]:
    """Read the mean in a safetensors file, by distance from the end.

    Returns:
        `[max_tokens, D]` float32, or `[L, max_tokens, D]` for separate layers.

    Raises:
        InvalidArgument: it is not such a file, or a number in it is not finite.
    """
    # Imported here, so that only readers of files pay for it.
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    try:
        mean = load(content)["corpus_mean"]
    except (SafetensorError, KeyError) as error:
        raise InvalidArgument(
            "this is not the file of a corpus mean, a safetensors file with a "
            f"tensor corpus_mean: {error}"
        ) from error
    if mean.ndim not in {2, 3}:
        raise InvalidArgument(
            f"corpus_mean is [D, max_tokens] or [L, D, max_tokens], not {list(mean.shape)}"
        )
    # A number beyond float32 becomes infinite, and is refused below.
    with np.errstate(over="ignore"):
        by_distance = np.ascontiguousarray(np.swapaxes(mean, -1, -2), dtype=np.float32)
    finite = np.isfinite(by_distance).all(axis=-1)
    finite = finite if finite.ndim == 1 else finite.all(axis=0)
    if not finite.all():
        raise InvalidArgument(
            f"corpus_mean is not finite at distance {int(finite.argmin())} from the "
            "end; it would spoil every vector that it centers"
        )
    return by_distance
