"""Between the contract's messages and the server's own types."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actvec.pooling import MODES
from actvec.server.errors import EncodingRangeError, RequestError
from actvec.server.model import ModelCard
from actvec.server.tokens import Truncation, resolve_bos
from actvec.v1 import model_pb2, vectors_pb2
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    MODE_SHORT,
    TRUNCATION_ERROR,
    TRUNCATION_KEEP_END,
    TRUNCATION_KEEP_START,
    TRUNCATION_UNSPECIFIED,
    VECTOR_ENCODING_FLOAT16,
    VECTOR_ENCODING_FLOAT32,
    VECTOR_ENCODING_UNSPECIFIED,
    VECTOR_ENCODING_VALUES,
)

_MODES = {MODE_SHORT: "short", MODE_LONG: "long"}
_TRUNCATIONS = {
    TRUNCATION_UNSPECIFIED: Truncation.ERROR,
    TRUNCATION_ERROR: Truncation.ERROR,
    TRUNCATION_KEEP_START: Truncation.KEEP_START,
    TRUNCATION_KEEP_END: Truncation.KEEP_END,
}
_ENCODINGS = {
    VECTOR_ENCODING_UNSPECIFIED: VECTOR_ENCODING_FLOAT32,
    VECTOR_ENCODING_FLOAT32: VECTOR_ENCODING_FLOAT32,
    VECTOR_ENCODING_FLOAT16: VECTOR_ENCODING_FLOAT16,
    VECTOR_ENCODING_VALUES: VECTOR_ENCODING_VALUES,
}


@dataclass(frozen=True)
class Settings:
    """How documents become vectors, checked.

    Attributes:
        mode: A key of `actvec.pooling.MODES`.
        truncation: What happens to a document over the context.
        encoding: How the numbers travel; not unspecified.
        corpus_mean: Id, name or `latest`; empty for raw vectors.
        prepend_bos: Whether BOS comes first; never where the tokenizer has none.
    """

    mode: str
    truncation: Truncation
    encoding: "vectors_pb2.VectorEncoding.ValueType"
    corpus_mean: str
    prepend_bos: bool


def parse_settings(message: vectors_pb2.VectorSettings, *, has_bos: bool) -> Settings:
    """Check and take over a request's settings.

    Args:
        message: The settings.
        has_bos: Whether the tokenizer has a BOS token.

    Raises:
        RequestError: a value is missing, out of range or not for this tokenizer; names the field.
    """
    if message.mode not in _MODES:
        raise RequestError("settings.mode", f"is {message.mode}; use MODE_SHORT or MODE_LONG")
    if message.encoding not in _ENCODINGS:
        raise RequestError(
            "settings.encoding",
            f"is {message.encoding}; use VECTOR_ENCODING_FLOAT32, _FLOAT16 or _VALUES",
        )
    return Settings(
        mode=_MODES[message.mode],
        truncation=parse_truncation("settings.truncation", message.truncation),
        encoding=_ENCODINGS[message.encoding],
        corpus_mean=message.corpus_mean,
        prepend_bos=resolve_bos(
            message.prepend_bos if message.HasField("prepend_bos") else None,
            has_bos=has_bos,
            field="settings.prepend_bos",
        ),
    )


def parse_truncation(field: str, message: "vectors_pb2.Truncation.ValueType") -> Truncation:
    """What a request's truncation means.

    Raises:
        RequestError: it is out of range; names the field.
    """
    if message not in _TRUNCATIONS:
        raise RequestError(field, f"is {message}; use TRUNCATION_ERROR, _KEEP_START or _KEEP_END")
    return _TRUNCATIONS[message]


def truncation_message(truncation: Truncation) -> "vectors_pb2.Truncation.ValueType":
    """The contract's name of a truncation, never unspecified."""
    return next(
        message
        for message, meaning in _TRUNCATIONS.items()
        if message != TRUNCATION_UNSPECIFIED and meaning is truncation
    )


def encode_vector(
    values: NDArray[np.float32], encoding: "vectors_pb2.VectorEncoding.ValueType"
) -> vectors_pb2.Vector:
    """A vector `[K * D]` float32 as a message.

    Raises:
        EncodingRangeError: a number does not fit float16.
    """
    message = vectors_pb2.Vector(dimensions=len(values), encoding=encoding)
    if encoding == VECTOR_ENCODING_VALUES:
        message.values.extend(values.tolist())
    elif encoding == VECTOR_ENCODING_FLOAT16:
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        if not np.isfinite(halves).all():
            raise EncodingRangeError(
                f"the vector has a number of {np.abs(values).max():.6g}, and float16 holds up to "
                "65504; ask for VECTOR_ENCODING_FLOAT32"
            )
        message.data = halves.tobytes()
    else:
        message.data = values.astype("<f4", copy=False).tobytes()
    return message


def pool_messages(mode: str) -> list[vectors_pb2.Pool]:
    """The pools of a mode, in the order of its vector."""
    return [vectors_pb2.Pool(name=pool.name, depth=pool.depth) for pool in MODES[mode]]


def model_stamp(card: ModelCard) -> vectors_pb2.ModelStamp:
    """Everything about the model that a vector depends on."""
    return vectors_pb2.ModelStamp(
        model=card.model,
        revision=card.revision,
        tokenizer_sha256=card.tokenizer_sha256,
        dtype=card.dtype,
        layers=card.layers,
        hook=card.hook,
    )


def vector_stamp(card: ModelCard, settings: Settings, version: str) -> vectors_pb2.VectorStamp:
    """What the vectors of these settings depend on beside the text."""
    return vectors_pb2.VectorStamp(
        model=model_stamp(card),
        prepend_bos=settings.prepend_bos,
        mode=next(mode for mode, name in _MODES.items() if name == settings.mode),
        pools=pool_messages(settings.mode),
        truncation=truncation_message(settings.truncation),
        actvec_version=version,
    )


def mode_messages(d_model: int) -> list[model_pb2.ModeInfo]:
    """The modes on offer, with their sizes for a residual width."""
    return [
        model_pb2.ModeInfo(
            mode=message, pools=pool_messages(name), dimensions=len(MODES[name]) * d_model
        )
        for message, name in _MODES.items()
    ]
