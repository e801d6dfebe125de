"""Between the messages of `actvec.v1` and this library's records; nothing else knows both."""

import hashlib
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument, ProtocolError, ResourceExhausted, code_name
from actvec.client.model import Limits, ModeInfo, ModelInfo, Versions
from actvec.client.vectors import (
    Document,
    Encoding,
    Failure,
    Mode,
    Pool,
    Result,
    Settings,
    Stamp,
    Truncation,
    Vector,
)
from actvec.v1 import model_pb2, vectors_pb2

_MODES: "MappingProxyType[Mode, vectors_pb2.Mode.ValueType]" = MappingProxyType(
    {"short": vectors_pb2.MODE_SHORT, "long": vectors_pb2.MODE_LONG}
)
TRUNCATIONS: "MappingProxyType[Truncation, vectors_pb2.Truncation.ValueType]" = MappingProxyType(
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
_MODE_NAMES = {number: name for name, number in _MODES.items()}
TRUNCATION_NAMES = {number: name for name, number in TRUNCATIONS.items()}

# Room in a message for what is not a document: settings, tags and lengths.
_MESSAGE_OVERHEAD = 4096


@dataclass(frozen=True)
class OutgoingDocument:
    """A document as it travels, kept until it is answered.

    Attributes:
        message: The document.
        text_sha256: SHA-256 of the text's UTF-8.
        size: Bytes of the message.
    """

    message: vectors_pb2.Document
    text_sha256: str
    size: int


def encode_settings(settings: Settings) -> vectors_pb2.VectorSettings:
    """Settings as they travel."""
    return vectors_pb2.VectorSettings(
        mode=_MODES[settings.mode],
        truncation=TRUNCATIONS[settings.truncation],
        encoding=_ENCODINGS[settings.encoding],
        corpus_mean=settings.center or "",
        prepend_bos=settings.prepend_bos,
    )


def encode_document(document: Document, sequence: int, limits: Limits) -> OutgoingDocument:
    """A document as it travels, under its number in the stream.

    Raises:
        InvalidArgument: the id or the text cannot be written in UTF-8.
        ResourceExhausted: the text is over a limit of the server.
    """
    text = encode_text(document)
    if limits.max_text_bytes and len(text) > limits.max_text_bytes:
        raise ResourceExhausted(
            f"{_called(document.id)} has {len(text)} bytes of text, the server takes"
            f" {limits.max_text_bytes} (max_text_bytes); split it",
            field="text",
        )
    message = vectors_pb2.Document(id=document.id, text=document.text, sequence=sequence)
    size = message.ByteSize()
    if limits.max_message_bytes and size + _MESSAGE_OVERHEAD > limits.max_message_bytes:
        raise ResourceExhausted(
            f"{_called(document.id)} takes {size} bytes in a message, the server takes messages of"
            f" {limits.max_message_bytes} (max_message_bytes); split it",
            field="text",
        )
    return OutgoingDocument(message, hashlib.sha256(text).hexdigest(), size)


def encode_text(document: Document) -> bytes:
    """The UTF-8 of a document's text.

    Raises:
        InvalidArgument: the id or the text cannot be written in UTF-8.
    """
    encode_utf8(document.id, "id", document.id)
    return encode_utf8(document.text, "text", document.id)


def encode_utf8(value: str, field: str, document_id: str) -> bytes:
    """The UTF-8 of a string.

    Raises:
        InvalidArgument: it holds half of a surrogate pair.
    """
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"the {field} of {_called(document_id)} cannot be written in UTF-8: character"
            f" {error.start} is half of a surrogate pair",
            field=field,
        ) from None


def decode_values(vector: vectors_pb2.Vector) -> NDArray[np.float32]:
    """The numbers of a vector, `[K * D]` float32, read-only, whatever they travelled as.

    Raises:
        ProtocolError: there are not as many as `dimensions` says, or the encoding is unknown.
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
    index: int = 0,
) -> Vector:
    """A vector and what is particular to its document.

    Raises:
        ProtocolError: its numbers do not divide into the stamp's pools.
    """
    values = decode_values(answer.vector)
    if not stamp.pools or len(values) % len(stamp.pools):
        raise ProtocolError(f"{len(values)} numbers do not divide into {len(stamp.pools)} pools")
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
    )


def decode_result(
    result: vectors_pb2.DocumentResult, stamp: Stamp, document: OutgoingDocument
) -> Result:
    """What became of one document of a stream.

    Raises:
        ProtocolError: neither a vector nor an error, or a vector that is not one.
    """
    document_id, index = document.message.id, document.message.sequence
    match result.WhichOneof("outcome"):
        case "vector":
            return decode_vector(
                result.vector,
                stamp,
                document_id=document_id,
                text_sha256=document.text_sha256,
                index=index,
            )
        case "error":
            error = result.error
            return Failure(document_id, code_name(error.code), error.message, error.field, index)
        case _:
            raise ProtocolError(f"{_called(document_id)} was answered with nothing")


def decode_stamp(stamp: vectors_pb2.VectorStamp, settings: Settings) -> Stamp:
    """The stamp of a call's vectors, held to what was asked for.

    Raises:
        ProtocolError: the server made other vectors than those asked for: a vector that was to be
            centred and is not must never pass for one.
    """
    mode, truncation = _MODE_NAMES.get(stamp.mode), TRUNCATION_NAMES.get(stamp.truncation)
    if mode != settings.mode or truncation != settings.truncation:
        raise ProtocolError(f"mode and truncation {mode} and {truncation} do not match {settings}")
    if settings.prepend_bos not in {None, stamp.prepend_bos}:
        raise ProtocolError(
            f"prepend_bos={settings.prepend_bos} was asked for, but the vectors are stamped with"
            f" {stamp.prepend_bos}"
        )
    if bool(stamp.corpus_mean_id) != bool(settings.center):
        raise ProtocolError(
            f"centring by {settings.center!r} was asked for, but the vectors are stamped with the"
            f" corpus mean {stamp.corpus_mean_id!r}"
        )
    return Stamp(
        model=stamp.model.model,
        revision=stamp.model.revision,
        tokenizer_sha256=stamp.model.tokenizer_sha256,
        dtype=stamp.model.dtype,
        layers=tuple(stamp.model.layers),
        hook=stamp.model.hook,
        prepend_bos=stamp.prepend_bos,
        mode=settings.mode,
        pools=tuple(Pool(pool.name, pool.depth) for pool in stamp.pools),
        truncation=settings.truncation,
        corpus_mean_id=stamp.corpus_mean_id,
        corpus_mean_sha256=stamp.corpus_mean_sha256,
        actvec_version=stamp.actvec_version,
    )


def decode_info(info: model_pb2.GetModelInfoResponse) -> ModelInfo:
    """What a server serves. Modes that this version does not know are left out."""
    limits, versions = info.limits, info.versions
    return ModelInfo(
        model=info.model.model,
        revision=info.model.revision,
        tokenizer_sha256=info.model.tokenizer_sha256,
        dtype=info.model.dtype,
        layers=tuple(info.model.layers),
        hook=info.model.hook,
        architecture=info.architecture,
        n_layers=info.n_layers,
        n_layers_loaded=info.n_layers_loaded,
        d_model=info.d_model,
        device=info.device,
        engine=info.engine,
        engine_note=info.engine_note,
        batch_invariant=info.batch_invariant,
        modes=tuple(
            ModeInfo(
                _MODE_NAMES[mode.mode],
                tuple(Pool(pool.name, pool.depth) for pool in mode.pools),
                mode.dimensions,
            )
            for mode in info.modes
            if mode.mode in _MODE_NAMES
        ),
        limits=Limits(
            max_tokens=limits.max_tokens,
            max_text_bytes=limits.max_text_bytes,
            max_message_bytes=limits.max_message_bytes,
            max_stream_documents=limits.max_stream_documents,
            max_queued_tokens=limits.max_queued_tokens,
            step_tokens=limits.step_tokens,
        ),
        versions=Versions(
            actvec=versions.actvec,
            torch=versions.torch,
            transformers=versions.transformers,
            transformer_lens=versions.transformer_lens,
            python=versions.python,
        ),
    )


def _called(document_id: str) -> str:
    """The document in a message, its id shortened and safe to print."""
    return f"document {document_id[:80]!a}" if document_id else "the text"
