"""From the server's own types to the contract's messages."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from actvec.pooling import PRESETS, Pool, preset_of
from actvec.server.errors import EncodingRangeError
from actvec.server.extraction.recipe import PooledDocument, Recipe
from actvec.server.model.card import ModelCard
from actvec.server.model.stamp import ModelStamp, Truncation
from actvec.server.model.text.tokenized import Source
from actvec.server.service.requests import MODE_NAMES, TRUNCATIONS, Encoding
from actvec.v1 import model_pb2, vectors_pb2
from actvec.v1.vectors_pb2 import (
    DOCUMENT_SOURCE_MESSAGES,
    DOCUMENT_SOURCE_TEXT,
    DOCUMENT_SOURCE_TOKEN_IDS,
    MODE_UNSPECIFIED,
    TRUNCATION_UNSPECIFIED,
    VECTOR_ENCODING_FLOAT16,
    VECTOR_ENCODING_VALUES,
)

_SOURCES = {
    Source.TEXT: DOCUMENT_SOURCE_TEXT,
    Source.MESSAGES: DOCUMENT_SOURCE_MESSAGES,
    Source.TOKEN_IDS: DOCUMENT_SOURCE_TOKEN_IDS,
}
_TRUNCATIONS: "dict[Truncation | None, vectors_pb2.Truncation.ValueType]" = {
    **{truncation: name for name, truncation in TRUNCATIONS.items()},
    None: TRUNCATION_UNSPECIFIED,
}


def truncation_message(truncation: Truncation | None) -> "vectors_pb2.Truncation.ValueType":
    """Encode a truncation; unspecified only if it is unknown."""
    return _TRUNCATIONS[truncation]


def fill_vector(
    message: vectors_pb2.DocumentVector, document: PooledDocument, encoding: Encoding
) -> None:
    """Encode a document's vector into a message.

    Raises:
        EncodingRangeError: a number does not fit the encoding.
    """
    message.tokens = document.tokens
    message.tokens_used = document.tokens_used
    message.truncated = document.truncated
    message.smallest_count = document.smallest_count
    message.bos = document.bos
    message.source = _SOURCES[document.source]
    _fill_numbers(message.vector, document.values, encoding)


def _fill_numbers(
    message: vectors_pb2.Vector, values: NDArray[np.float32], encoding: Encoding
) -> None:
    """Encode a vector, float32 `[L, K, D]`.

    Raises:
        EncodingRangeError: a number does not fit float16.
    """
    message.dimensions = values.size
    message.encoding = encoding
    message.shape.extend(values.shape)
    if encoding == VECTOR_ENCODING_VALUES:
        message.values.extend(values.reshape(-1).tolist())
    elif encoding == VECTOR_ENCODING_FLOAT16:
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        if not np.isfinite(halves).all():
            raise EncodingRangeError(
                f"the vector contains {np.abs(values).max():.6g}, and float16 holds "
                "numbers up to 65504; ask for VECTOR_ENCODING_FLOAT32"
            )
        message.data = halves.tobytes()
    else:
        message.data = values.astype("<f4", copy=False).tobytes()


def pool_messages(pools: Sequence[Pool]) -> list[vectors_pb2.Pool]:
    """Encode pools, in the order of their vector."""
    return [vectors_pb2.Pool(name=pool.name, depth=pool.depth) for pool in pools]


def stamp_message(stamp: ModelStamp) -> vectors_pb2.ModelStamp:
    """Encode a model's stamp."""
    return vectors_pb2.ModelStamp(**vars(stamp))


def vector_stamp(card: ModelCard, recipe: Recipe, version: str) -> vectors_pb2.VectorStamp:
    """Encode everything that the vectors of a recipe depend on except the document."""
    settings = recipe.settings
    preset = preset_of(settings.pools)
    stamp = vectors_pb2.VectorStamp(
        model=stamp_message(card.stamp_of(settings.target)),
        prepend_bos=settings.prepend_bos,
        mode=next((mode for mode, name in MODE_NAMES.items() if name == preset), MODE_UNSPECIFIED),
        pools=pool_messages(settings.pools),
        truncation=truncation_message(settings.truncation),
        actvec_version=version,
        chat_template_sha256=card.chat_template_sha256,
        chat_template_kwargs=settings.chat.kwargs,
        add_generation_prompt=settings.chat.add_generation_prompt,
        chat_template_date=card.chat_template_date,
    )
    if recipe.centering is not None:
        stamp.corpus_mean_id = recipe.centering.record.id
        stamp.corpus_mean_sha256 = recipe.centering.record.sha256
    return stamp


def mode_messages(d_model: int) -> list[model_pb2.ModeInfo]:
    """Encode the presets, with their vector sizes for a residual width."""
    return [
        model_pb2.ModeInfo(
            mode=message,
            pools=pool_messages(PRESETS[name]),
            dimensions=len(PRESETS[name]) * d_model,
        )
        for message, name in MODE_NAMES.items()
    ]
