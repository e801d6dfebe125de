"""Numbers and stamps arrive as sent, or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_array_equal

from actvec.client import Document, InvalidArgument, Limits, ProtocolError, ResourceExhausted
from actvec.client.messages.documents import encode_document
from actvec.client.messages.model import decode_info
from actvec.client.messages.vectors import (
    decode_stamp,
    decode_values,
    decode_vector,
    encode_request,
    encode_settings,
)
from actvec.client.records.settings import VectorSettings
from actvec.v1 import model_pb2, vectors_pb2

LIMITS = Limits(
    max_tokens=100,
    max_text_bytes=1000,
    max_message_bytes=6000,
    max_stream_documents=10,
    max_queued_tokens=1000,
    step_tokens=100,
)
shapes = st.integers(0, 64)


@given(arrays.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False)))
def test_float32_and_values_round_trip_exactly(numbers):
    as_bytes = vectors_pb2.Vector(
        dimensions=len(numbers),
        encoding=vectors_pb2.VECTOR_ENCODING_FLOAT32,
        data=numbers.astype("<f4").tobytes(),
    )
    as_values = vectors_pb2.Vector(
        dimensions=len(numbers), encoding=vectors_pb2.VECTOR_ENCODING_VALUES, values=numbers
    )
    for message in (as_bytes, as_values):
        decoded = decode_values(message)
        assert decoded.dtype == np.float32
        assert not decoded.flags.writeable
        assert_array_equal(decoded, numbers)


@given(arrays.arrays(np.float16, shapes, elements=st.floats(width=16, allow_nan=False)))
def test_float16_is_widened_exactly(numbers):
    message = vectors_pb2.Vector(
        dimensions=len(numbers),
        encoding=vectors_pb2.VECTOR_ENCODING_FLOAT16,
        data=numbers.astype("<f2").tobytes(),
    )
    decoded = decode_values(message)
    assert decoded.dtype == np.float32
    assert_array_equal(decoded, numbers.astype(np.float32))


@pytest.mark.parametrize(
    "vector",
    [
        vectors_pb2.Vector(
            dimensions=2, encoding=vectors_pb2.VECTOR_ENCODING_FLOAT32, data=b"1234"
        ),
        vectors_pb2.Vector(dimensions=1, encoding=vectors_pb2.VECTOR_ENCODING_FLOAT16, data=b"123"),
        vectors_pb2.Vector(dimensions=2, encoding=vectors_pb2.VECTOR_ENCODING_VALUES, values=[1]),
        vectors_pb2.Vector(dimensions=1, data=b"1234"),
    ],
    ids=["float32", "float16", "values", "unspecified"],
)
def test_vector_of_a_wrong_length_is_refused(vector):
    with pytest.raises(ProtocolError):
        decode_values(vector)


def test_unset_settings_travel_as_their_defaults_named():
    settings = encode_settings(VectorSettings(mode="short"))
    assert settings.mode == vectors_pb2.MODE_SHORT
    assert settings.truncation == vectors_pb2.TRUNCATION_ERROR
    assert settings.encoding == vectors_pb2.VECTOR_ENCODING_FLOAT32
    assert settings.corpus_mean == ""
    # Only the server knows whether its tokenizer has one.
    assert not settings.HasField("prepend_bos")
    for prepend_bos in (True, False):
        asked = encode_settings(VectorSettings(mode="short", prepend_bos=prepend_bos))
        assert asked.HasField("prepend_bos")
        assert asked.prepend_bos == prepend_bos


def stamp_of(**changes):
    """The stamp of a short vector, as a server of layers 1 and 2 sends it."""
    model = vectors_pb2.ModelStamp(layers=[1, 2], hook="resid_post")
    stamp = vectors_pb2.VectorStamp(
        model=model,
        mode=vectors_pb2.MODE_SHORT,
        pools=[vectors_pb2.Pool(name="exp_933", depth=0.067)],
        truncation=vectors_pb2.TRUNCATION_ERROR,
    )
    stamp.MergeFrom(vectors_pb2.VectorStamp(**changes))
    return stamp


INFO = decode_info(
    model_pb2.GetModelInfoResponse(
        model=vectors_pb2.ModelStamp(layers=[1, 2], hook="resid_post"), d_model=2
    )
)


def test_raw_vector_never_passes_for_centered():
    with pytest.raises(ProtocolError, match="latest"):
        decode_stamp(stamp_of(), VectorSettings(mode="short", center="latest"), INFO)
    with pytest.raises(ProtocolError, match="'mean'"):
        decode_stamp(stamp_of(corpus_mean_id="mean"), VectorSettings(mode="short"), INFO)


def test_bos_is_as_asked_for():
    for stamped in (True, False):
        stamp = stamp_of(prepend_bos=stamped)
        for asked in (None, stamped):
            settings = VectorSettings(mode="short", prepend_bos=asked)
            assert decode_stamp(stamp, settings, INFO).prepend_bos == stamped
        settings = VectorSettings(mode="short", prepend_bos=not stamped)
        with pytest.raises(ProtocolError, match=f"prepend_bos={not stamped} was asked for"):
            decode_stamp(stamp, settings, INFO)


@pytest.mark.parametrize(
    "asked",
    [
        {"mode": "long"},
        {"pools": ["exp:0.067", "mean"]},
        {"mode": "short", "layers": [1]},
        {"mode": "short", "separate": True},
        {"mode": "short", "hook": "resid_pre"},
        {"mode": "short", "truncation": "end"},
    ],
    ids=str,
)
def test_other_vectors_than_asked_for_are_refused(asked):
    """As from a server that ignores a field because it does not know it."""
    with pytest.raises(ProtocolError, match="was asked for"):
        decode_stamp(stamp_of(), VectorSettings(**asked), INFO)


def test_pools_have_one_form():
    stamp = decode_stamp(stamp_of(), VectorSettings(pools=["exp:0.0670"]), INFO)
    assert (stamp.mode, stamp.row_names) == ("short", ("exp_933",))


def test_settings_travel_in_full():
    settings = encode_settings(
        VectorSettings(
            pools=["mean", "span:a"],
            layers=range(2, 0, -1),
            separate=True,
            hook="mlp_out",
            add_generation_prompt=True,
            chat_template_kwargs={"b": 1, "a": None},
        )
    )
    assert settings.mode == vectors_pb2.MODE_UNSPECIFIED
    assert list(settings.pools) == ["mean", "span:a"]
    assert list(settings.layers) == [1, 2]
    assert (settings.separate_layers, settings.hook) == (True, "mlp_out")
    assert settings.add_generation_prompt
    assert settings.chat_template_kwargs == '{"a": null, "b": 1}'


def test_plain_text_travels_as_it_always_did():
    settings = VectorSettings(mode="short")
    for document, field in (
        (Document("a", "x"), "text"),
        (Document("a", "x", spans=[("s", 0, 1)]), "document"),
        (Document("a", messages=[("user", "x")]), "document"),
        (Document("a", token_ids=[7]), "document"),
    ):
        request = encode_request(encode_document(document, 0, LIMITS), settings)
        assert (request.text == "x", request.HasField("document")) == (
            field == "text",
            field == "document",
        )


def test_documents_travel_whole():
    chat = encode_document(
        Document("c", messages=[{"role": "user", "content": "Hi"}]), 4, LIMITS
    ).message
    assert [(one.role, one.content) for one in chat.messages.messages] == [("user", "Hi")]
    ids = encode_document(Document("i", token_ids=[5, 0]), 5, LIMITS).message
    assert (list(ids.token_ids.ids), ids.sequence) == ([5, 0], 5)
    text = encode_document(Document("t", "abc", spans=[("s", 1, 3)]), 0, LIMITS).message
    assert [(one.name, one.start, one.end) for one in text.spans] == [("s", 1, 3)]


def test_shapes_are_held_to_the_stamp():
    settings = VectorSettings(mode="short", layers=[1, 2], separate=True)
    message = stamp_of()
    message.model.separate_layers = True
    stamp = decode_stamp(message, settings, INFO)
    answer = vectors_pb2.DocumentVector(
        vector=vectors_pb2.Vector(
            dimensions=4,
            encoding=vectors_pb2.VECTOR_ENCODING_VALUES,
            values=[0, 1, 2, 3],
            shape=[2, 1, 2],
        ),
        source=vectors_pb2.DOCUMENT_SOURCE_MESSAGES,
        bos=True,
    )
    vector = decode_vector(answer, stamp, document_id="a", text_sha256="", columns={})
    assert vector.array.tolist() == [[[0, 1]], [[2, 3]]]
    assert vector.pools["exp:0.067"].tolist() == [[0, 1], [2, 3]]
    assert (vector.source, vector.bos) == ("messages", True)
    del answer.vector.shape[:]
    assert decode_vector(
        answer, stamp, document_id="a", text_sha256="", columns={}
    ).array.shape == (2, 1, 2)
    answer.vector.shape.extend([1, 2, 2])
    with pytest.raises(ProtocolError, match=r"\[1, 2, 2\]"):
        decode_vector(answer, stamp, document_id="a", text_sha256="", columns={})


def test_limits_are_of_bytes_not_of_characters():
    encode_document(Document("fits", "x" * 1000), 0, LIMITS)
    with pytest.raises(ResourceExhausted, match="1001 bytes"):
        encode_document(Document("over", "x" * 999 + "é"), 0, LIMITS)


def test_document_beyond_a_message_is_refused():
    with pytest.raises(ResourceExhausted, match="max_message_bytes"):
        encode_document(Document("i" * 2000, "x"), 0, LIMITS)


def test_id_without_utf8_is_refused():
    with pytest.raises(InvalidArgument, match=r"the id of document '\\udc80'") as error:
        encode_document(Document("\udc80", "x"), 0, LIMITS)
    assert error.value.field == "id"
