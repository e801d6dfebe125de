"""What a server serves: its model, its modes and what it refuses beyond."""

from dataclasses import asdict, dataclass
from typing import Any

from actvec.client.vectors import Mode, Pool


@dataclass(frozen=True)
class ModeInfo:
    """A mode on offer.

    Attributes:
        mode: `short` or `long`.
        pools: Its pools, in the order of the vector.
        dimensions: `K * D`, numbers in a vector.
    """

    mode: Mode
    pools: tuple[Pool, ...]
    dimensions: int


@dataclass(frozen=True)
class Limits:
    """What the server refuses beyond; 0 where it names no limit.

    Attributes:
        max_tokens: Tokens of a document that the context takes, BOS included.
        max_text_bytes: Bytes of UTF-8 in one text.
        max_message_bytes: Bytes of one request message.
        max_stream_documents: Documents of one stream that are in the server at a time.
        max_queued_tokens: Tokens of all calls that wait at a time.
        step_tokens: Tokens of one forward pass.
    """

    max_tokens: int
    max_text_bytes: int
    max_message_bytes: int
    max_stream_documents: int
    max_queued_tokens: int
    step_tokens: int


UNLIMITED = Limits(
    max_tokens=0,
    max_text_bytes=0,
    max_message_bytes=0,
    max_stream_documents=0,
    max_queued_tokens=0,
    step_tokens=0,
)


@dataclass(frozen=True)
class Versions:
    """Versions of what computes the vectors."""

    actvec: str
    torch: str
    transformers: str
    transformer_lens: str
    python: str


@dataclass(frozen=True)
class ModelInfo:
    """What a server serves.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        tokenizer_sha256: SHA-256 of the tokenizer's canonical JSON.
        dtype: dtype of the weights.
        layers: The blocks, from 0, whose states are averaged.
        hook: The hook whose states are taken after each of them.
        architecture: transformers' architecture.
        n_layers: Blocks of the whole model.
        n_layers_loaded: Blocks that were loaded.
        d_model: D, the residual width.
        device: What computes, for example `cpu` or `cuda:0`.
        engine: `packed`, `plain` or `lens`.
        modes: The modes on offer.
        limits: What the server refuses beyond.
        versions: What computes the vectors.
        batch_invariant: Whether the server found vectors to be bit for bit the same alone and in a
            step; False from a server that does not tell.
        engine_note: Why the engine is not the packed one; empty if it is, or was asked for.
    """

    model: str
    revision: str
    tokenizer_sha256: str
    dtype: str
    layers: tuple[int, ...]
    hook: str
    architecture: str
    n_layers: int
    n_layers_loaded: int
    d_model: int
    device: str
    engine: str
    modes: tuple[ModeInfo, ...]
    limits: Limits
    versions: Versions
    batch_invariant: bool = False
    engine_note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The information as JSON takes it."""
        return asdict(self)
