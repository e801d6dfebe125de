"""Numbers and stamps arrive as they were sent, or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_array_equal

from actvec.client import Document, InvalidArgument, Limits, ProtocolError, ResourceExhausted
from actvec.client.vectors import Settings
from actvec.client.wire import decode_stamp, decode_values, encode_document, encode_settings
from actvec.v1 import vectors_pb2

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
def test_a_vector_of_another_length_than_it_says_is_refused(vector):
    with pytest.raises(ProtocolError):
        decode_values(vector)


def test_unset_settings_travel_as_their_defaults_named():
    settings = encode_settings(Settings("short"))
    assert settings.mode == vectors_pb2.MODE_SHORT
    assert settings.truncation == vectors_pb2.TRUNCATION_ERROR
    assert settings.encoding == vectors_pb2.VECTOR_ENCODING_FLOAT32
    assert settings.corpus_mean == ""
    # The server knows whether its tokenizer has one.
    assert not settings.HasField("prepend_bos")
    for prepend_bos in (True, False):
        asked = encode_settings(Settings("short", prepend_bos=prepend_bos))
        assert asked.HasField("prepend_bos")
        assert asked.prepend_bos == prepend_bos


def test_a_raw_vector_never_passes_for_a_centred_one():
    stamp = vectors_pb2.VectorStamp(
        mode=vectors_pb2.MODE_SHORT, truncation=vectors_pb2.TRUNCATION_ERROR
    )
    with pytest.raises(ProtocolError, match="latest"):
        decode_stamp(stamp, Settings("short", center="latest"))
    stamp.corpus_mean_id = "mean"
    with pytest.raises(ProtocolError, match="'mean'"):
        decode_stamp(stamp, Settings("short"))


def test_bos_is_as_asked_for():
    stamp = vectors_pb2.VectorStamp(
        mode=vectors_pb2.MODE_SHORT, truncation=vectors_pb2.TRUNCATION_ERROR
    )
    for stamped in (True, False):
        stamp.prepend_bos = stamped
        for asked in (None, stamped):
            assert decode_stamp(stamp, Settings("short", prepend_bos=asked)).prepend_bos == stamped
        with pytest.raises(ProtocolError, match=f"prepend_bos={not stamped} was asked for"):
            decode_stamp(stamp, Settings("short", prepend_bos=not stamped))


def test_a_vector_of_another_mode_is_refused():
    stamp = vectors_pb2.VectorStamp(
        mode=vectors_pb2.MODE_LONG, truncation=vectors_pb2.TRUNCATION_ERROR
    )
    with pytest.raises(ProtocolError, match="long"):
        decode_stamp(stamp, Settings("short"))


def test_limits_are_of_bytes_not_of_characters():
    encode_document(Document("fits", "x" * 1000), 0, LIMITS)
    with pytest.raises(ResourceExhausted, match="1001 bytes"):
        encode_document(Document("over", "x" * 999 + "é"), 0, LIMITS)


def test_a_document_that_no_message_holds_is_refused():
    with pytest.raises(ResourceExhausted, match="max_message_bytes"):
        encode_document(Document("i" * 2000, "x"), 0, LIMITS)


def test_the_id_is_held_to_utf8_as_well_and_printed_safely():
    with pytest.raises(InvalidArgument, match=r"the id of document '\\udc80'") as error:
        encode_document(Document("\udc80", "x"), 0, LIMITS)
    assert error.value.field == "id"
