"""The order of means, whatever the clock shows; and means that cannot merge."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pytest

from actvec.pooling import MeanAccumulator
from actvec.server.errors import MeanMismatchError
from actvec.server.means.centering import Centerings
from actvec.server.means.record import MeanRecord
from actvec.server.means.record_json import encode_record
from actvec.server.means.store import MeanStore
from actvec.server.model.stamp import ModelStamp, Truncation
from actvec.server.model.target import Target

D = 4
MODEL = ModelStamp(
    model="m",
    revision="r",
    tokenizer_sha256="t",
    dtype="float32",
    layers=(1, 2),
    hook="resid_post",
)
# Another value for every field of the stamp.
OTHERS = {
    "model": "n",
    "revision": "s",
    "tokenizer_sha256": "u",
    "layers": (1, 3),
    "hook": "resid_mid",
    "separate_layers": True,
}
# A mean of the same layers, kept separate, does center their average.
APART = sorted(OTHERS.keys() - {"separate_layers"})
# Rounding of the weights does not make other states.
INDIFFERENT = {"dtype"}


@pytest.fixture
def store(tmp_path):
    return MeanStore(tmp_path)


def saved(store, name, seed=0, model=MODEL, **settings):
    accumulator = MeanAccumulator(D)
    accumulator.add(np.random.default_rng(seed).normal(size=(3, D)).astype(np.float32))
    record = MeanRecord(name=name, model=model, **({"prepend_bos": True} | settings))
    return store.save(accumulator, record)


def with_clock(monkeypatch, seconds):
    """The clock stands still."""
    monkeypatch.setattr("actvec.server.means.record.now", lambda: time(seconds))


def time(seconds):
    return datetime.fromtimestamp(seconds, UTC)


def test_latest_does_not_go_by_the_clock(store, monkeypatch):
    with_clock(monkeypatch, 10_000)
    saved(store, "first", 1)
    # An hour back.
    with_clock(monkeypatch, 6_400)
    saved(store, "second", 2)
    assert store.find("latest", MODEL).name == "second"
    assert [record.name for record in store.records()] == ["second", "first"]


def test_order_outlives_the_server(store, tmp_path, monkeypatch):
    with_clock(monkeypatch, 10_000)
    saved(store, "first", 1)
    saved(store, "second", 2)
    with_clock(monkeypatch, 6_400)
    again = MeanStore(tmp_path)
    saved(again, "third", 3)
    again.delete(again.find("second", MODEL))
    saved(again, "fourth", 4)
    assert [record.name for record in again.records()] == ["fourth", "third", "first"]


def test_name_is_its_newest_mean(store, monkeypatch):
    for seconds, seed in ((10_000, 1), (6_400, 2)):
        with_clock(monkeypatch, seconds)
        newest = saved(store, "same", seed)
    assert store.find("same", MODEL).id == newest.id


def test_store_without_numbers_is_ordered_by_time(store, tmp_path, monkeypatch):
    """As in stores of earlier versions; means stored from now on are newer than all of them."""
    for seconds, name in ((3_000, "b"), (1_000, "a"), (9_000, "c")):
        record = replace(saved(store, name, seed=seconds), created_at=time(seconds))
        (tmp_path / f"{record.id}.json").write_text(json.dumps(encode_record(record)))
    with_clock(monkeypatch, 2_000)
    saved(store, "new", 5)
    assert [record.name for record in store.records()] == ["new", "c", "b", "a"]


@pytest.mark.parametrize("number", ["x", None, [1]])
def test_invalid_number_hides_one_mean(store, tmp_path, number, caplog):
    damaged, _ = saved(store, "first", 1), saved(store, "second", 2)
    path = tmp_path / f"{damaged.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"storeNumber": number}))
    assert [record.name for record in store.records()] == ["second"]
    assert "cannot be read" in caplog.text


def other_model(field):
    return replace(MODEL, **{field: OTHERS[field]})


def test_every_field_of_the_model_is_tried():
    assert OTHERS.keys() | INDIFFERENT == {field.name for field in fields(ModelStamp)}


@pytest.mark.parametrize("field", OTHERS)
def test_means_of_another_model_do_not_merge(store, field):
    one, other = saved(store, "one", 1), saved(store, "other", 2, model=other_model(field))
    with pytest.raises(MeanMismatchError, match=f"differ in {field}; only"):
        store.merge([one, other], "both")


@pytest.mark.parametrize(
    "settings", [{"prepend_bos": False}, {"truncation": Truncation.KEEP_START}]
)
def test_means_of_other_settings_do_not_merge(store, settings):
    one, other = saved(store, "one", 1), saved(store, "other", 2, **settings)
    with pytest.raises(MeanMismatchError, match=f"differ in {next(iter(settings))}; only"):
        store.merge([one, other], "both")


def test_means_of_another_dtype_merge(store):
    half = replace(MODEL, dtype="float16")
    one, other = saved(store, "one", 1), saved(store, "other", 2, model=half)
    assert store.merge([one, other], "both").documents == 2


@pytest.mark.parametrize("field", APART)
def test_mean_of_another_model_is_refused(store, field):
    saved(store, "theirs", model=other_model(field))
    target = Target(tuple(MODEL.layers), MODEL.hook)
    with pytest.raises(MeanMismatchError, match="this server has"):
        Centerings(store, MODEL, D)("theirs", target, prepend_bos=True)


@pytest.mark.parametrize("field", APART)
def test_latest_is_of_the_same_model(store, field):
    ours = saved(store, "ours", 1)
    saved(store, "theirs", 2, model=other_model(field))
    assert store.find("latest", MODEL).id == ours.id
