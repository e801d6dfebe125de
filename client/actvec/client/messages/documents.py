"""Documents as messages, checked against the server's limits before they travel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from actvec.client.errors import InvalidArgument, ResourceExhausted
from actvec.client.records.columns import Scalar
from actvec.client.records.model import Limits
from actvec.client.records.vectors import Document
from actvec.v1 import vectors_pb2

# Room in a message for everything but the document: settings, tags and lengths.
_MESSAGE_OVERHEAD = 4096


@dataclass(frozen=True)
class OutgoingDocument:
    """A document as it travels, kept until it is answered.

    Attributes:
        message: The document.
        text_sha256: The document's digest, in hexadecimal.
        size: Bytes of the message.
        columns: The document's columns, which do not travel.
    """

    message: vectors_pb2.Document
    text_sha256: str
    size: int
    columns: Mapping[str, Scalar] = field(default_factory=dict)


def encode_document(document: Document, sequence: int, limits: Limits) -> OutgoingDocument:
    """Encode a document under its number in the stream.

    Raises:
        InvalidArgument: the id or the text is not valid UTF-8.
        ResourceExhausted: the text exceeds a limit of the server.
    """
    size = check_utf8(document)
    if limits.max_text_bytes and size > limits.max_text_bytes:
        raise ResourceExhausted(
            f"{called(document.id)} has {size} bytes of text, the server takes"
            f" {limits.max_text_bytes} (max_text_bytes); split it",
            field=document.source,
        )
    message = vectors_pb2.Document(
        id=document.id,
        sequence=sequence,
        spans=[vectors_pb2.Span(name=s.name, start=s.start, end=s.end) for s in document.spans],
    )
    if document.messages is not None:
        message.messages.messages.extend(
            vectors_pb2.ChatMessage(role=one.role, content=one.content) for one in document.messages
        )
    elif document.token_ids is not None:
        message.token_ids.ids.extend(document.token_ids)
    else:
        message.text = document.content
    size = message.ByteSize()
    if limits.max_message_bytes and size + _MESSAGE_OVERHEAD > limits.max_message_bytes:
        raise ResourceExhausted(
            f"{called(document.id)} takes {size} bytes in a message, the server takes messages of"
            f" {limits.max_message_bytes} (max_message_bytes); split it",
            field=document.source,
        )
    return OutgoingDocument(message, document.digest().hex(), size, document.columns)


def check_utf8(document: Document) -> int:
    """Return the bytes of UTF-8 in a document's text, or in the roles and contents of its messages.

    Raises:
        InvalidArgument: the id or a text is not valid UTF-8.
    """
    encode_utf8(document.id, "id", document.id)
    if document.text is not None:
        return len(encode_utf8(document.text, "text", document.id))
    texts = (text for one in document.messages or () for text in (one.role, one.content))
    return sum(len(encode_utf8(text, "messages", document.id)) for text in texts)


def encode_utf8(value: str, field: str, document_id: str) -> bytes:
    """Encode a string as UTF-8.

    Raises:
        InvalidArgument: it contains half of a surrogate pair.
    """
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"the {field} of {called(document_id)} cannot be written in UTF-8: character"
            f" {error.start} is half of a surrogate pair",
            field=field,
        ) from None


def called(document_id: str) -> str:
    """Name a document in an error, with its id shortened and safe to print."""
    return f"document {document_id[:80]!a}" if document_id else "the text"
