"""After a reconnection, a stream checks the stamp of later vectors against the first."""

import pytest

from actvec.client.errors import StampChanged
from actvec.client.messages.model import decode_info
from actvec.client.messages.vectors import decode_stamp
from actvec.client.records.settings import VectorSettings
from actvec.client.streams.in_flight import InFlight, cost
from actvec.v1.model_pb2 import GetModelInfoResponse
from actvec.v1.vectors_pb2 import ModelStamp, Pool, VectorStamp

SETTINGS = VectorSettings(mode="short", center="latest")
INFO = decode_info(GetModelInfoResponse())


def stamp(**changed):
    model = {
        "model": "m",
        "revision": "r",
        "tokenizer_sha256": "t",
        "dtype": "float32",
        "layers": [1, 2],
        "hook": "resid_post",
    }
    rest = {
        "prepend_bos": True,
        "mode": "MODE_SHORT",
        "pools": [Pool(name="exp_933", depth=0.067)],
        "truncation": "TRUNCATION_ERROR",
        "corpus_mean_id": "a",
        "corpus_mean_sha256": "b",
        "actvec_version": "0.1.0",
    }
    of_model = {name: changed.pop(name) for name in list(changed) if name in model}
    return VectorStamp(model=ModelStamp(**model | of_model), **rest | changed)


# Another value of each field, except for those checked against the request.
HELD = {"truncation", "separate_layers"}
OTHERS = {
    "model": "n",
    "revision": "s",
    "tokenizer_sha256": "u",
    "dtype": "bfloat16",
    "layers": [1],
    "hook": "resid_pre",
    "prepend_bos": False,
    "pools": [Pool(name="exp_933", depth=0.07)],
    "corpus_mean_id": "c",
    "corpus_mean_sha256": "d",
    "actvec_version": "0.2.0",
    "mode": "MODE_UNSPECIFIED",
    "chat_template_sha256": "e",
    "chat_template_kwargs": "{}",
    "add_generation_prompt": True,
    "chat_template_date": "2024-07-26",
}


def test_every_field_is_tried():
    decoded = decode_stamp(stamp(), SETTINGS, INFO).to_dict()
    assert OTHERS.keys() | HELD == decoded.keys()


@pytest.mark.parametrize("field", OTHERS)
async def test_stream_of_another_stamp_ends(field):
    work = InFlight(SETTINGS, INFO, None, None, cost=cost, lanes=1)
    work.check_stamp(stamp())
    work.check_stamp(stamp())
    with pytest.raises(StampChanged, match=f"start over: {field} is .* there and .* here$"):
        work.check_stamp(stamp(**{field: OTHERS[field]}))
