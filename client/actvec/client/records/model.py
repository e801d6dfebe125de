"""What a server serves: its model, modes and limits."""

from dataclasses import asdict, dataclass
from typing import Any

from actvec.client.records.display import record
from actvec.client.records.settings import Mode
from actvec.client.records.stamp import Pool


@dataclass(frozen=True)
class ModeInfo:
    """A mode on offer.

    Attributes:
        mode: `short` or `long`.
        pools: Its pools, in the order of the vector.
        dimensions: `K * D`, numbers per vector.
    """

    mode: Mode
    pools: tuple[Pool, ...]
    dimensions: int


@dataclass(frozen=True)
class Limits:
    """The server's limits; 0 for one that it does not report.

    Attributes:
        max_tokens: Tokens of one document, BOS included: the context.
        max_text_bytes: Bytes of UTF-8 in one text.
        max_message_bytes: Bytes of one request message.
        max_stream_documents: Documents of one stream inside the server at a time.
        max_queued_tokens: Tokens of all calls that wait at a time.
        step_tokens: Tokens of one forward pass.
        max_vector_numbers: Numbers in one vector: layers * pools * D.
    """

    max_tokens: int = 0
    max_text_bytes: int = 0
    max_message_bytes: int = 0
    max_stream_documents: int = 0
    max_queued_tokens: int = 0
    step_tokens: int = 0
    max_vector_numbers: int = 0


UNLIMITED = Limits()


@dataclass(frozen=True)
class Versions:
    """Versions of the software that computes the vectors."""

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
        layers: Numbers of the default blocks, from 0.
        hook: Where in each block the server captures states by default.
        architecture: transformers' architecture.
        n_layers: Blocks of the whole model.
        n_layers_loaded: Blocks that the server loaded.
        d_model: D, the residual width.
        device: The device that computes, for example `cpu` or `cuda:0`.
        engine: `packed`, `plain` or `lens`.
        modes: The modes on offer.
        limits: The server's limits.
        versions: Versions of the software that computes the vectors.
        batch_invariant: Whether the server found vectors bitwise the same alone and in a step;
            False if it does not report it.
        engine_note: Why the engine is not the packed one; empty if it is, or if another was
            requested.
        layers_on_offer: The layers you can request.
        hooks: The hooks you can request.
        has_chat_template: Whether the model has a chat template, and so accepts messages.
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
    layers_on_offer: tuple[int, ...] = ()
    hooks: tuple[str, ...] = ()
    has_chat_template: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The information as JSON values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        modes = [f"{one.mode} ({one.dimensions:,} numbers)" for one in self.modes]
        return record(self.model, {**self.to_dict(), "modes": modes})
