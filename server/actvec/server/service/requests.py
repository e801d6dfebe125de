"""From requests to the server's own types, checked: each error names its field."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from actvec.pooling import PRESETS, Pool, PoolError, parse_pools
from actvec.server.config import Limits
from actvec.server.errors import InputError, RequestError, VectorTooLargeError
from actvec.server.extraction.contents import (
    CHAT_SPANS,
    ChatContent,
    Content,
    IdsContent,
    Span,
    TextContent,
)
from actvec.server.extraction.settings import Settings
from actvec.server.model.card import ModelCard
from actvec.server.model.stamp import Truncation
from actvec.server.model.target import Target
from actvec.server.model.text.chat import ChatSettings, Message, parse_kwargs
from actvec.server.model.text.tokenizer import resolve_bos
from actvec.v1 import means_pb2, vectors_pb2
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    MODE_SHORT,
    MODE_UNSPECIFIED,
    TRUNCATION_ERROR,
    TRUNCATION_KEEP_END,
    TRUNCATION_KEEP_START,
    VECTOR_ENCODING_FLOAT16,
    VECTOR_ENCODING_FLOAT32,
    VECTOR_ENCODING_VALUES,
)

Encoding: TypeAlias = "vectors_pb2.VectorEncoding.ValueType"

MODE_NAMES = {MODE_SHORT: "short", MODE_LONG: "long"}
TRUNCATIONS = {
    TRUNCATION_ERROR: Truncation.ERROR,
    TRUNCATION_KEEP_START: Truncation.KEEP_START,
    TRUNCATION_KEEP_END: Truncation.KEEP_END,
}
_ENCODINGS = {VECTOR_ENCODING_FLOAT32, VECTOR_ENCODING_FLOAT16, VECTOR_ENCODING_VALUES}

MOST_POOLS = 64
"""Limit on the pools of a vector."""


def parse_settings(
    message: vectors_pb2.VectorSettings, card: ModelCard, limits: Limits, *, has_bos: bool
) -> Settings:
    """Parse a request's settings.

    Args:
        message: The settings.
        card: The model's card.
        limits: Limits on the size of a vector.
        has_bos: Whether the tokenizer has a BOS token.

    Raises:
        RequestError: a value is missing, out of range, or does not fit this model; names the field.
        VectorTooLargeError: a vector would have too many numbers.
    """
    pools, target = _parse_pools(message), parse_target(message, card, "settings.")
    numbers = target.rows * len(pools) * card.d_model
    if numbers > limits.vector_numbers:
        raise VectorTooLargeError(
            "settings",
            f"ask for vectors of {target.rows} x {len(pools)} x {card.d_model} = {numbers} numbers "
            f"(layers, pools, width); the limit is {limits.vector_numbers}. Ask for fewer "
            "layers or pools at a time",
        )
    return Settings(
        pools=pools,
        target=target,
        truncation=parse_truncation("settings.truncation", message.truncation),
        corpus_mean=message.corpus_mean,
        prepend_bos=parse_bos(message, "settings.", has_bos=has_bos),
        chat=parse_chat(message, "settings."),
    )


def parse_encoding(message: vectors_pb2.VectorSettings) -> Encoding:
    """Parse the encoding of a request's vectors; the result is never unspecified.

    Raises:
        RequestError: the encoding is out of range.
    """
    encoding = message.encoding or VECTOR_ENCODING_FLOAT32
    if encoding not in _ENCODINGS:
        raise RequestError(
            "settings.encoding",
            f"is {encoding}; use VECTOR_ENCODING_FLOAT32, _FLOAT16 or _VALUES",
        )
    return encoding


def _parse_pools(message: vectors_pb2.VectorSettings) -> tuple[Pool, ...]:
    if not message.pools:
        if message.mode not in MODE_NAMES:
            raise RequestError(
                "settings.mode",
                f"is {message.mode}; use MODE_SHORT or MODE_LONG, or name pools in settings.pools",
            )
        return PRESETS[MODE_NAMES[message.mode]]
    if message.mode != MODE_UNSPECIFIED:
        raise RequestError(
            "settings.pools", "are named together with a mode; give one or the other"
        )
    if len(message.pools) > MOST_POOLS:
        raise RequestError(
            "settings.pools", f"are {len(message.pools)}; a vector has at most {MOST_POOLS}"
        )
    try:
        return parse_pools(message.pools)
    except PoolError as error:
        raise RequestError("settings.pools", str(error)) from error


def parse_target(
    message: vectors_pb2.VectorSettings | means_pb2.CorpusMeanJob, card: ModelCard, prefix: str
) -> Target:
    """Parse the layers and hook of a request.

    Args:
        message: Names layers and a hook, or leaves the choice to the server.
        card: The model's card.
        prefix: Prefix of the fields' names.

    Raises:
        RequestError: the model has no such layers or hook, or they are not loaded.
    """
    layers, hook = tuple(message.layers), message.hook or card.hook
    if any(one >= other for one, other in pairwise(layers)):
        raise RequestError(f"{prefix}layers", "must be ascending, each named once")
    offer = card.layers_on_offer
    if layers and layers[-1] not in offer:
        more = (
            "; the model has more, which this server does not load"
            if layers[-1] < card.n_layers
            else f"; the model has {card.n_layers} blocks"
        )
        raise RequestError(
            f"{prefix}layers",
            f"name layer {layers[-1]}, but only layers {offer[0]} to {offer[-1]} are loaded{more}",
        )
    if hook not in card.hooks:
        raise RequestError(
            f"{prefix}hook",
            f"is {hook[:80]!r}; this server has {', '.join(card.hooks)} for this model",
        )
    return Target(layers or card.layers, hook, message.separate_layers)


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Attribute the input errors of the block to a request field.

    Raises:
        RequestError: an input was unusable.
    """
    try:
        yield
    except InputError as error:
        raise RequestError.of(error, field) from None


def of_document(error: InputError) -> RequestError:
    """Turn the error of a document into one of a request, with its part as the field."""
    field = "settings.pools" if error.part == "pools" else error.part
    # A chat is a message with a field `messages`.
    return RequestError.of(error, f"messages.{field}" if field.startswith("messages[") else field)


def parse_bos(
    message: vectors_pb2.VectorSettings | means_pb2.CorpusMeanJob, prefix: str, *, has_bos: bool
) -> bool:
    """Parse whether BOS comes first.

    Raises:
        RequestError: the request asks for BOS, and the tokenizer has none; names the field.
    """
    asked = message.prepend_bos if message.HasField("prepend_bos") else None
    with naming(f"{prefix}prepend_bos"):
        return resolve_bos(asked, has_bos=has_bos)


def parse_truncation(field: str, message: "vectors_pb2.Truncation.ValueType") -> Truncation:
    """Parse a truncation.

    Raises:
        RequestError: it is out of range; names the field.
    """
    truncation = TRUNCATIONS.get(message or TRUNCATION_ERROR)
    if truncation is None:
        raise RequestError(field, f"is {message}; use TRUNCATION_ERROR, _KEEP_START or _KEEP_END")
    return truncation


def parse_chat(
    message: vectors_pb2.VectorSettings | means_pb2.CorpusMeanJob, prefix: str
) -> ChatSettings:
    """Parse how to render a request's chats.

    Raises:
        RequestError: the template's arguments are not a JSON object; names the field.
    """
    with naming(f"{prefix}chat_template_kwargs"):
        kwargs = parse_kwargs(message.chat_template_kwargs)
    return ChatSettings(message.add_generation_prompt, kwargs)


class SentDocument:
    """A document of a message, parsed when it is needed."""

    def __init__(self, message: vectors_pb2.Document) -> None:
        self._message = message
        self.id = message.id
        self.sequence = message.sequence

    def content(self) -> Content | RequestError:
        """Return its content, or the reason why it has none."""
        return parse_content(self._message)


def parse_content(message: vectors_pb2.Document) -> Content | RequestError:
    """Parse a document; return an error if its content is unreadable."""
    # Only if there are any: to look at an empty list, protobuf takes a piece of memory, and after
    # 10,000 that are freed it trims the heap, see `VectorsCall._finish`.
    given = next((value for field, value in message.ListFields() if field.name == "spans"), ())
    spans = tuple(Span(span.name, span.start, span.end) for span in given)
    kind = message.WhichOneof("content")
    if kind == "messages":
        if spans:
            return RequestError(
                "spans", f"are of texts and token ids; a chat has {', '.join(CHAT_SPANS)}"
            )
        return ChatContent(
            tuple(Message(one.role, one.content) for one in message.messages.messages)
        )
    if kind == "token_ids":
        return IdsContent(np.array(message.token_ids.ids, dtype=np.int64), spans)
    return TextContent(message.text, spans)


def parse_request(request: vectors_pb2.ExtractVectorRequest) -> Content:
    """Parse the document of a unary call.

    Raises:
        RequestError: there are two documents, or none that is readable.
    """
    if not request.HasField("document"):
        return TextContent(request.text)
    if request.text:
        raise RequestError("document", "comes together with a text; send only one of the two")
    content = parse_content(request.document)
    if isinstance(content, RequestError):
        raise content
    return content
