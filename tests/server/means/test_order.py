"""Which mean is the latest, whatever the clock says; and what does not merge."""

import json

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp

from actvec.pooling import MeanAccumulator
from actvec.server.errors import MeanMismatchError
from actvec.server.means.centring import Centrings
from actvec.server.means.store import MeanStore
from actvec.v1.means_pb2 import CorpusMean
from actvec.v1.vectors_pb2 import TRUNCATION_KEEP_START, ModelStamp

D = 4
MODEL = ModelStamp(
    model="m",
    revision="r",
    tokenizer_sha256="t",
    dtype="float32",
    layers=[1, 2],
    hook="resid_post",
)
# Every field of the stamp, and another value for it.
OTHERS = {
    "model": "n",
    "revision": "s",
    "tokenizer_sha256": "u",
    "layers": [1, 3],
    "hook": "resid_mid",
}
# The rounding of the weights makes no other states.
INDIFFERENT = {"dtype"}


@pytest.fixture
def store(tmp_path):
    return MeanStore(tmp_path)


def saved(store, name, seed=0, model=MODEL, **settings):
    accumulator = MeanAccumulator(D)
    accumulator.add(np.random.default_rng(seed).normal(size=(3, D)).astype(np.float32))
    record = CorpusMean(name=name, model=model, **({"prepend_bos": True} | settings))
    return store.save(accumulator, record)


def with_clock(monkeypatch, seconds):
    """Protobuf's clock stands still."""
    monkeypatch.setattr("actvec.server.means.store.set_now", lambda time: time.FromSeconds(seconds))


def test_latest_does_not_go_by_the_clock(store, monkeypatch):
    with_clock(monkeypatch, 10_000)
    saved(store, "first", 1)
    # An hour back.
    with_clock(monkeypatch, 6_400)
    saved(store, "second", 2)
    assert store.find("latest", MODEL).name == "second"
    assert [record.name for record in store.records()] == ["second", "first"]


def test_the_order_outlives_the_server(store, tmp_path, monkeypatch):
    with_clock(monkeypatch, 10_000)
    saved(store, "first", 1)
    saved(store, "second", 2)
    with_clock(monkeypatch, 6_400)
    again = MeanStore(tmp_path)
    saved(again, "third", 3)
    again.delete(again.find("second", MODEL))
    saved(again, "fourth", 4)
    assert [record.name for record in again.records()] == ["fourth", "third", "first"]


def test_a_name_is_its_newest_mean(store, monkeypatch):
    for seconds, seed in ((10_000, 1), (6_400, 2)):
        with_clock(monkeypatch, seconds)
        newest = saved(store, "same", seed)
    assert store.find("same", MODEL).id == newest.id


def test_a_store_without_numbers_is_ordered_by_time(store, tmp_path, monkeypatch):
    """As versions of before left it; what is stored from now on is newer than all of it."""
    for seconds, name in ((3_000, "b"), (1_000, "a"), (9_000, "c")):
        record = saved(store, name, seed=seconds)
        record.created_at.CopyFrom(Timestamp(seconds=seconds))
        (tmp_path / f"{record.id}.json").write_text(MessageToJson(record))
    with_clock(monkeypatch, 2_000)
    saved(store, "new", 5)
    assert [record.name for record in store.records()] == ["new", "c", "b", "a"]


@pytest.mark.parametrize("number", ["x", None, [1]])
def test_a_number_that_is_none_hides_one_mean_alone(store, tmp_path, number, caplog):
    damaged, _ = saved(store, "first", 1), saved(store, "second", 2)
    path = tmp_path / f"{damaged.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"storeNumber": number}))
    assert [record.name for record in store.records()] == ["second"]
    assert "cannot be read" in caplog.text


def other_model(field):
    model = ModelStamp()
    model.CopyFrom(MODEL)
    value = OTHERS[field]
    if isinstance(value, list):
        getattr(model, field)[:] = value
    else:
        setattr(model, field, value)
    return model


def test_every_field_of_the_model_is_tried():
    assert OTHERS.keys() | INDIFFERENT == {field.name for field in ModelStamp.DESCRIPTOR.fields}


@pytest.mark.parametrize("field", OTHERS)
def test_means_of_another_model_do_not_merge(store, field):
    one, other = saved(store, "one", 1), saved(store, "other", 2, model=other_model(field))
    with pytest.raises(MeanMismatchError, match="other models, layers or settings"):
        store.merge([one, other], "both")


@pytest.mark.parametrize(
    "settings", [{"prepend_bos": False}, {"truncation": TRUNCATION_KEEP_START}]
)
def test_means_of_other_settings_do_not_merge(store, settings):
    one, other = saved(store, "one", 1), saved(store, "other", 2, **settings)
    with pytest.raises(MeanMismatchError, match="other models, layers or settings"):
        store.merge([one, other], "both")


def test_means_of_another_dtype_merge(store):
    half = ModelStamp()
    half.CopyFrom(MODEL)
    half.dtype = "float16"
    one, other = saved(store, "one", 1), saved(store, "other", 2, model=half)
    assert store.merge([one, other], "both").documents == 2


@pytest.mark.parametrize("field", OTHERS)
def test_a_mean_of_another_model_does_not_center(store, field):
    saved(store, "theirs", model=other_model(field))
    with pytest.raises(MeanMismatchError, match="this server has"):
        Centrings(store, MODEL, D)("theirs", prepend_bos=True)


@pytest.mark.parametrize("field", OTHERS)
def test_a_mean_of_another_model_is_not_the_latest(store, field):
    ours = saved(store, "ours", 1)
    saved(store, "theirs", 2, model=other_model(field))
    assert store.find("latest", MODEL).id == ours.id
