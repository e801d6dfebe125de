"""Conversion between this library's records and the messages about vectors."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import ProtocolError
from actvec.client.messages.documents import OutgoingDocument, called
from actvec.client.messages.records import record_of
from actvec.client.records.columns import Scalar
from actvec.client.records.content import Source
from actvec.client.records.model import ModelInfo
from actvec.client.records.settings import Encoding, Mode, StateSettings, Truncation, VectorSettings
from actvec.client.records.stamp import Pool, Stamp
from actvec.client.records.vectors import Failure, Result, Vector
from actvec.client.transport.status import code_name
from actvec.v1 import vectors_pb2

_MODES: "MappingProxyType[Mode, vectors_pb2.Mode.ValueType]" = MappingProxyType(
    {"short": vectors_pb2.MODE_SHORT, "long": vectors_pb2.MODE_LONG}
)
_TRUNCATIONS: "MappingProxyType[Truncation, vectors_pb2.Truncation.ValueType]" = MappingProxyType(
    {
        "error": vectors_pb2.TRUNCATION_ERROR,
        "start": vectors_pb2.TRUNCATION_KEEP_START,
        "end": vectors_pb2.TRUNCATION_KEEP_END,
    }
)
_ENCODINGS: "MappingProxyType[Encoding, vectors_pb2.VectorEncoding.ValueType]" = MappingProxyType(
    {
        "float32": vectors_pb2.VECTOR_ENCODING_FLOAT32,
        "float16": vectors_pb2.VECTOR_ENCODING_FLOAT16,
        "values": vectors_pb2.VECTOR_ENCODING_VALUES,
    }
)
_SOURCES: "MappingProxyType[int, Source]" = MappingProxyType(
    {
        vectors_pb2.DOCUMENT_SOURCE_TEXT: "text",
        vectors_pb2.DOCUMENT_SOURCE_MESSAGES: "messages",
        vectors_pb2.DOCUMENT_SOURCE_TOKEN_IDS: "token_ids",
    }
)
MODE_NAMES = {number: name for name, number in _MODES.items()}
TRUNCATION_NAMES = {number: name for name, number in _TRUNCATIONS.items()}


def encode_settings(settings: VectorSettings) -> vectors_pb2.VectorSettings:
    """Encode settings."""
    return vectors_pb2.VectorSettings(
        mode=_MODES[settings.mode] if settings.mode else vectors_pb2.MODE_UNSPECIFIED,
        encoding=_ENCODINGS[settings.encoding],
        corpus_mean=settings.center or "",
        pools=settings.pools,
        **encode_states(settings),
    )


def encode_states(settings: StateSettings) -> dict[str, Any]:
    """Encode the settings that vectors and means have in common, as fields of a message."""
    kwargs = settings.chat_template_kwargs
    return {
        "truncation": _TRUNCATIONS[settings.truncation],
        "prepend_bos": settings.prepend_bos,
        "layers": settings.layers,
        "separate_layers": settings.separate,
        "hook": settings.hook,
        "add_generation_prompt": settings.add_generation_prompt,
        "chat_template_kwargs": json.dumps(kwargs, sort_keys=True) if kwargs else "",
    }


def encode_request(
    document: OutgoingDocument, settings: VectorSettings
) -> vectors_pb2.ExtractVectorRequest:
    """Encode the request for one document's vector.

    A plain text travels in the request's own `text`, which every version of the server knows.
    """
    message = document.message
    request = vectors_pb2.ExtractVectorRequest(settings=encode_settings(settings))
    if message.WhichOneof("content") == "text" and not message.spans:
        request.text = message.text
    else:
        request.document.CopyFrom(message)
    return request


def decode_values(vector: vectors_pb2.Vector) -> NDArray[np.float32]:
    """Decode the numbers of a vector, `[L * K * D]` float32, read-only, from any encoding.

    Raises:
        ProtocolError: their number differs from `dimensions`, or the encoding is unknown.
    """
    match vector.encoding:
        case vectors_pb2.VECTOR_ENCODING_FLOAT32 if len(vector.data) == 4 * vector.dimensions:
            values = np.frombuffer(vector.data, "<f4").astype(np.float32, copy=False)
        case vectors_pb2.VECTOR_ENCODING_FLOAT16 if len(vector.data) == 2 * vector.dimensions:
            values = np.frombuffer(vector.data, "<f2").astype(np.float32)
        case vectors_pb2.VECTOR_ENCODING_VALUES if len(vector.values) == vector.dimensions:
            values = np.array(vector.values, np.float32)
        case _:
            raise ProtocolError(
                f"a vector of {vector.dimensions} numbers came as {len(vector.data)} bytes and"
                f" {len(vector.values)} values in encoding {vector.encoding}"
            )
    values.flags.writeable = False
    return values


def decode_vector(
    answer: vectors_pb2.DocumentVector,
    stamp: Stamp,
    *,
    document_id: str,
    text_sha256: str,
    columns: Mapping[str, Scalar],
    index: int = 0,
) -> Vector:
    """Decode the vector of one document.

    Raises:
        ProtocolError: its numbers do not divide into the stamp's layers and pools.
    """
    values = decode_values(answer.vector)
    layers, pools = stamp.shape
    width, rest = divmod(len(values), layers * pools) if layers * pools else (0, 1)
    # A server of an earlier version sends no shape.
    if rest or list(answer.vector.shape) not in ([], [layers, pools, width]):
        raise ProtocolError(
            f"{len(values)} numbers of shape {list(answer.vector.shape)} are no vector of {layers}"
            f" layers and {pools} pools"
        )
    source = _SOURCES.get(answer.source)
    return Vector(
        values=values,
        id=document_id,
        tokens=answer.tokens,
        tokens_used=answer.tokens_used,
        truncated=answer.truncated,
        smallest_count=answer.smallest_count,
        stamp=stamp,
        text_sha256=text_sha256,
        index=index,
        source=source or "text",
        bos=answer.bos if source else None,
        columns=columns,
    )


def decode_result(
    result: vectors_pb2.DocumentResult, stamp: Stamp, document: OutgoingDocument
) -> Result:
    """Decode the result of one document of a stream.

    Raises:
        ProtocolError: it is neither a vector nor an error, or the vector is invalid.
    """
    document_id, index = document.message.id, document.message.sequence
    match result.WhichOneof("outcome"):
        case "vector":
            return decode_vector(
                result.vector,
                stamp,
                document_id=document_id,
                text_sha256=document.text_sha256,
                columns=document.columns,
                index=index,
            )
        case "error":
            error = result.error
            return Failure(
                document_id,
                code_name(error.code),
                error.message,
                error.field,
                index,
                document.columns,
            )
        case _:
            raise ProtocolError(f"the server's answer to {called(document_id)} is empty")


def decode_stamp(
    stamp: vectors_pb2.VectorStamp, settings: VectorSettings, info: ModelInfo
) -> Stamp:
    """Decode the stamp of a call's vectors, and check it against the request.

    Args:
        stamp: The message.
        settings: The settings of the request.
        info: The server's defaults.

    Raises:
        ProtocolError: the stamp does not fit the request. A raw vector must never pass for a
            centered one.
    """
    model, truncation = stamp.model, TRUNCATION_NAMES.get(stamp.truncation)
    layers, pools = tuple(model.layers), tuple(pool.name for pool in stamp.pools)
    _hold("pools", settings.pool_names, pools)
    _hold("truncation", settings.truncation, truncation)
    _hold("separate", settings.separate, model.separate_layers)
    if settings.layers:
        _hold("layers", tuple(settings.layers), layers)
    if settings.hook:
        _hold("hook", settings.hook, model.hook)
    if settings.prepend_bos is not None:
        _hold("prepend_bos", settings.prepend_bos, stamp.prepend_bos)
    if bool(stamp.corpus_mean_id) != bool(settings.center):
        raise ProtocolError(
            f"the request centers by {settings.center!r}, but the vectors are "
            f"stamped with the corpus mean {stamp.corpus_mean_id!r}"
        )
    return record_of(
        Stamp,
        model,
        stamp,
        mode=MODE_NAMES.get(stamp.mode),
        pools=tuple(record_of(Pool, pool) for pool in stamp.pools),
        truncation=settings.truncation,
        default_target=(layers, model.hook, model.separate_layers)
        == (info.layers, info.hook, False),
    )


def shape_of(settings: VectorSettings, info: ModelInfo) -> tuple[int, int, int]:
    """Predict L, K and D of the vectors that a server will return."""
    layers = len(settings.layers or info.layers) if settings.separate else 1
    return layers, len(settings.pool_names), info.d_model


def _hold(name: str, asked: object, stamped: object) -> None:
    if asked != stamped:
        raise ProtocolError(
            f"{name}={asked!r} was asked for, but the vectors are stamped with {stamped!r}; is the"
            " server of an earlier version?"
        )
