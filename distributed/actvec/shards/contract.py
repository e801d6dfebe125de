"""Converts documents and models between the client's and the server's types."""

from actvec.client.messages.documents import encode_document
from actvec.client.messages.model import decode_info
from actvec.client.records.model import ModelInfo
from actvec.client.records.vectors import Document
from actvec.server.errors import InputError
from actvec.server.extraction.contents import Content
from actvec.server.service.messages import stamp_message
from actvec.server.service.requests import parse_content
from actvec.shards.host import ModelHost
from actvec.v1.model_pb2 import GetModelInfoResponse

# No message travels, and the host applies its own limits to texts.
_UNLIMITED = decode_info(GetModelInfoResponse()).limits


def host_info(host: ModelHost) -> ModelInfo:
    """Describe a host's defaults as a server would."""
    return decode_info(
        GetModelInfoResponse(model=stamp_message(host.card.stamp), d_model=host.card.d_model)
    )


def content_of(document: Document) -> Content:
    """Convert a document to the server's content.

    Raises:
        InvalidArgument: it is not valid UTF-8.
        InputError: it has no readable content.
    """
    content = parse_content(encode_document(document, 0, _UNLIMITED).message)
    if isinstance(content, InputError):
        raise content
    return content
