"""What goes in and what comes out: documents, vectors, their stamp, and failures."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import ActvecError

Mode = Literal["short", "long"]
Truncation = Literal["error", "start", "end"]
Encoding = Literal["float32", "float16", "values"]


@dataclass(frozen=True)
class Document:
    """A text and the caller's name for it.

    Attributes:
        id: Names the document in its result. Need not be unique.
        text: The text.

    Raises:
        TypeError: `id` or `text` is not a str.
    """

    id: str
    text: str

    def __post_init__(self) -> None:
        for name, value in (("id", self.id), ("text", self.text)):
            if not isinstance(value, str):
                raise TypeError(f"the {name} of a document is a str, not {type(value).__name__}")


@dataclass(frozen=True)
class Pool:
    """One pool of a mode.

    Attributes:
        name: `last`, `exp_977`, `exp_933` or `exp_841`.
        depth: Half-life as a fraction of the document; 0 for `last`.
    """

    name: str
    depth: float


@dataclass(frozen=True)
class Stamp:
    """What makes a vector reproducible: two vectors of the same stamp and text agree.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        tokenizer_sha256: SHA-256 of the tokenizer's canonical JSON.
        dtype: dtype of the weights.
        layers: The blocks, from 0, whose states are averaged.
        hook: The hook whose states are taken after each of them.
        prepend_bos: Whether BOS came first.
        mode: `short` or `long`.
        pools: The mode's pools, in the order of the vector.
        truncation: What happened to texts over the context: `error`, `start` or `end` was kept.
        corpus_mean_id: The mean that was subtracted; empty for a raw vector.
        corpus_mean_sha256: SHA-256 of that mean's file; empty for a raw vector.
        actvec_version: Version of actvec that made the vector.
    """

    model: str
    revision: str
    tokenizer_sha256: str
    dtype: str
    layers: tuple[int, ...]
    hook: str
    prepend_bos: bool
    mode: Mode
    pools: tuple[Pool, ...]
    truncation: Truncation
    corpus_mean_id: str
    corpus_mean_sha256: str
    actvec_version: str

    @property
    def centered(self) -> bool:
        """Whether a corpus mean was subtracted."""
        return bool(self.corpus_mean_id)

    def to_dict(self) -> dict[str, Any]:
        """The stamp as JSON takes it."""
        return asdict(self) | {
            "layers": list(self.layers),
            "pools": [asdict(p) for p in self.pools],
        }


@dataclass(frozen=True, eq=False)
class Vector:
    """The activation vector of one document.

    Attributes:
        values: `[K * D]` float32, read-only.
        id: The document's id, as given; empty for a bare text.
        tokens: Tokens of the whole text, BOS included.
        tokens_used: Tokens that were pooled.
        truncated: Whether the text was cut to the context.
        smallest_count: Smallest number of documents behind a used position of the corpus mean; 0
            for a raw vector, or where the mean has no counts.
        stamp: What the vector depends on beside the text.
        text_sha256: SHA-256 of the text's UTF-8.
        index: Position of the document among those of its stream, from 0.
    """

    values: NDArray[np.float32] = field(repr=False)
    id: str
    tokens: int
    tokens_used: int
    truncated: bool
    smallest_count: int
    stamp: Stamp
    text_sha256: str
    index: int = 0

    @property
    def matrix(self) -> NDArray[np.float32]:
        """The pools as rows, `[K, D]` float32, a read-only view."""
        return self.values.reshape(len(self.stamp.pools), -1)

    @property
    def pools(self) -> dict[str, NDArray[np.float32]]:
        """The pools by name, each `[D]` float32, a read-only view."""
        return {pool.name: row for pool, row in zip(self.stamp.pools, self.matrix, strict=True)}

    @property
    def norm(self) -> float:
        """The L2 norm."""
        return float(np.linalg.norm(self.values.astype(np.float64)))


@dataclass(frozen=True)
class Failure:
    """Why one document has no vector; the others go on.

    Attributes:
        id: The document's id, as given.
        code: Name of a google.rpc code, for example `INVALID_ARGUMENT`.
        message: What was wrong, what the limit is and what to do next.
        field: The field at fault, for example `text`; empty where none is.
        index: Position of the document among those of its stream, from 0.
    """

    id: str
    code: str
    message: str
    field: str = ""
    index: int = 0

    @classmethod
    def of(cls, error: ActvecError, document_id: str, index: int) -> "Failure":
        """The failure of one document that an error is."""
        return cls(document_id, error.code, str(error), error.field, index)

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON takes it."""
        return asdict(self)


Result = Vector | Failure


@dataclass(frozen=True)
class Settings:
    """How documents become vectors: what a call or a stream asks for.

    Attributes:
        mode: `short` or `long`.
        center: The corpus mean to subtract: an id, a name or `latest`; None for raw vectors.
        truncation: What happens to a text over the context: `error`, `start` or `end`.
        prepend_bos: Whether BOS comes first; None for BOS if the tokenizer has one.
        encoding: How the numbers travel.

    Raises:
        ValueError: a mode, truncation or encoding that does not exist, or an empty `center`.
    """

    mode: Mode
    center: str | None = None
    truncation: Truncation = "error"
    prepend_bos: bool | None = None
    encoding: Encoding = "float32"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("truncation", self.truncation, get_args(Truncation)),
            ("encoding", self.encoding, get_args(Encoding)),
        ):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
        if self.center is not None and not self.center:
            raise ValueError("center is a corpus mean's id, its name or 'latest', or None for raw")
