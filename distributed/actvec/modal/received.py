"""Answers of the class on Modal as the client's records, for `modal run` to save."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.json_format import ParseDict

from actvec.client.messages.model import decode_info
from actvec.client.messages.vectors import decode_stamp
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Document, Vector
from actvec.v1.model_pb2 import GetModelInfoResponse
from actvec.v1.vectors_pb2 import VectorStamp


def received_vector(text: str, made: Mapping[str, Any]) -> Vector:
    """Convert an answer of the class to the client's vector."""
    stamp = ParseDict(made["stamp"], VectorStamp())
    info = decode_info(GetModelInfoResponse(model=stamp.model, d_model=made["d_model"]))
    settings = VectorSettings(mode=made["pooling_strategy"], center=stamp.corpus_mean_id or None)
    return Vector(
        np.array(made["vector"], np.float32),
        id="",
        tokens=made["tokens"],
        tokens_used=made["tokens_used"],
        truncated=made["truncated"],
        smallest_count=made["smallest_count"],
        stamp=decode_stamp(stamp, settings, info),
        text_sha256=Document("", text).digest().hex(),
        bos=made["bos"],
    )
