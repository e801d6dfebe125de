"""Your own layers, hooks and pools, and documents other than plain texts."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from actvec.client import (
    AsyncClient,
    Client,
    Document,
    Failure,
    InvalidArgument,
    Vector,
    VectorSettings,
)
from actvec.client.records.inputs import as_document
from actvec.pooling import ids_digest, messages_digest, text_digest

TEXT = "The tide comes back twice a day."


def test_layers_are_kept_apart(client):
    info = client.info()
    every = client.extract(TEXT, layers=range(7), separate=True, pools=["mean", "last"])
    assert info.layers_on_offer == tuple(range(7))
    assert every.array.shape == (7, 2, info.d_model)
    assert_array_equal(every.values, every.array.ravel())
    assert every.stamp.layers == tuple(range(7))
    assert every.stamp.row_names[:3] == ("layer 0 mean", "layer 0 last", "layer 1 mean")
    for layer in (0, 6):
        alone = client.extract(TEXT, layers=[layer], pools=["last"])
        assert_array_equal(every.array[layer, 1], alone.array[0, 0])
        assert_array_equal(every.pools["last"][layer], alone.pools["last"])


def test_a_preset_is_its_pools(client):
    long = client.extract(TEXT, mode="long")
    written = client.extract(TEXT, pools=["last", "exp:0.023", "exp:0.067", "exp:0.159"])
    assert written.stamp == long.stamp
    assert_array_equal(written.values, long.values)
    assert_array_equal(long.pools["exp:0.0670"], long.pools["exp_933"])
    with pytest.raises(KeyError, match="no pool 'mean'; there are: last, exp_977"):
        long.pools["mean"]


def test_own_layers_named_are_the_default(client):
    layers = client.info().layers
    named = client.extract(TEXT, mode="short", layers=reversed(layers), hook="resid_post")
    assert named.stamp == client.extract(TEXT, mode="short").stamp
    assert named.stamp.label == "short"
    other = client.extract(TEXT, mode="short", layers=layers[:1])
    assert other.stamp.label.startswith("short-")


def test_spans_count_characters_and_tokens(client):
    start = TEXT.index("comes")
    text = Document("t", TEXT, spans=[("verb", start, start + 10), ("all", 0, len(TEXT))])
    vector = client.extract(text, pools=["span:verb", "span:all", "mean_no_bos"])
    assert_array_equal(vector.pools["span:all"], vector.pools["mean_no_bos"])
    assert np.abs(vector.pools["span:verb"] - vector.pools["mean_no_bos"]).max() > 0
    ids = Document("i", token_ids=[9, 10, 11, 12], spans=[{"name": "two", "start": 1, "end": 2}])
    vector = client.extract(ids, pools=["span:two", "position:1"])
    assert_array_equal(vector.pools["span:two"], vector.pools["position:1"])
    assert (vector.source, vector.tokens, vector.bos) == ("token_ids", 4, False)
    assert vector.text_sha256 == ids_digest([9, 10, 11, 12], [("two", 1, 2)]).hex()


def test_a_stream_takes_rows_and_pairs(client):
    rows = [
        {"id": 7, "text": TEXT, "label": "sea"},
        {"id": "ids", "token_ids": [5, 6], "text": None},
        ("pair", TEXT),
        TEXT,
        Document("document", TEXT),
        {"label": "sea"},
        {"id": "bad", "text": TEXT, "spans": [("a", 4, 4)]},
    ]
    results = list(client.stream(rows, mode="short", ordered=True))
    ids = ["7", "ids", "pair", "3", "document", "5", "bad"]
    assert [(result.index, result.id) for result in results] == list(enumerate(ids))
    assert all(isinstance(result, Vector) for result in results[:5])
    for number in (0, 2, 3, 4):
        assert_array_equal(results[number].values, results[4].values)
    missing, bad = results[5:]
    assert isinstance(missing, Failure)
    assert missing.message == "no text, messages, token_ids or conversations; there are: label"
    assert (bad.code, bad.field) == ("INVALID_ARGUMENT", "spans")


def test_vectors_come_as_one_array(client):
    array, ids, failures = client.vectors(
        ["One.", " ", "Two."], layers=[1, 2], separate=True, pools=["last"]
    )
    assert array.shape == (2, 2, 1, client.info().d_model)
    assert array.dtype == np.float32
    assert ids == ["0", "2"]
    assert [failure.index for failure in failures] == [1]
    assert_array_equal(
        array[1], client.extract("Two.", layers=[1, 2], separate=True, pools=["last"]).array
    )
    assert client.vectors([" "], mode="long").array.shape == (0, 1, 4, client.info().d_model)


async def test_async_vectors_are_the_same(demo_server):
    settings = VectorSettings(pools=["mean"])
    async with AsyncClient(demo_server.target) as client:
        array, ids, failures = await client.vectors([("a", TEXT)], settings=settings)
        alone = await client.extract(TEXT, settings=settings)
    assert_array_equal(array[0], alone.array)
    assert (ids, failures) == (["a"], [])


def test_without_pools_the_choice_is_named(client):
    with pytest.raises(ValueError, match=r"mode='short' \(exp_933: D numbers\).*pools=\['mean'\]"):
        client.extract(TEXT)
    with pytest.raises(ValueError, match="either a mode or pools"):
        client.extract(TEXT, mode="short", pools=["mean"])
    with pytest.raises(TypeError, match="mode"):
        client.extract(TEXT, settings=VectorSettings(mode="short"), mode="short")
    with pytest.raises(TypeError, match="layer"):
        client.extract(TEXT, mode="short", layer=3)
    for layers in (3, "all"):
        with pytest.raises(
            TypeError, match=r"layers are a list .*client\.info\(\)\.layers_on_offer"
        ):
            client.extract(TEXT, mode="short", layers=layers)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"layers": [99]}, r"settings\.layers: .*99"),
        ({"hook": "resid_mid"}, r"settings\.hook: .*resid_mid"),
        ({"pools": ["span:answer"]}, "no span 'answer'"),
        ({"pools": ["meen"]}, r"settings\.pools: no pool 'meen'"),
    ],
    ids=str,
)
def test_what_is_not_on_offer_is_refused(client, asked, reason):
    with pytest.raises(InvalidArgument, match=reason):
        client.extract(TEXT, **{"pools": ["mean"]} | asked)


def test_a_mean_of_separate_layers_centers_any(start_server):
    """Any of its layers, averaged or separate; the identity holds for each."""
    server = start_server("--model=demo")
    with Client(server.target) as client:
        texts = [
            TEXT,
            "Another text, of other words.",
            "A third one that is longer than these two.",
        ]
        mean = client.corpus_mean(texts, job="all", layers=[1, 3, 5], separate=True)
        assert mean.model.separate_layers
        assert mean.model.layers == (1, 3, 5)
        file = client.download_mean(mean.name)
        assert file.mean.shape == (3, mean.max_tokens, mean.d_model)
        for settings in (
            {"layers": [1, 5], "separate": True},
            {"layers": [1, 5]},
            {"layers": [3]},
        ):
            raw = client.extract(TEXT, pools=["last"], **settings)
            centered = client.extract(TEXT, pools=["last"], center=mean.name, **settings)
            by_distance = file.mean_of(centered.stamp)
            expected = by_distance[..., 0, :].reshape(raw.array[:, 0].shape)
            np.testing.assert_allclose(
                raw.array[:, 0] - centered.array[:, 0], expected, rtol=1e-4, atol=1e-4
            )


def test_digests_are_the_contracts():
    assert Document("a", TEXT).digest() == text_digest(TEXT)
    spanned = Document("a", TEXT, spans=[("b", 2, 3), ("a", 0, 1)])
    assert spanned.digest() == text_digest(TEXT, [("a", 0, 1), ("b", 2, 3)])
    chat = Document("a", messages=[("user", "x"), {"role": "assistant", "content": "y"}])
    assert chat.digest() == messages_digest([("user", "x"), ("assistant", "y")])


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"text": "x", "token_ids": [1]}, ValueError),
        ({}, TypeError),
        ({"messages": []}, ValueError),
        ({"messages": "Hello"}, TypeError),
        ({"messages": [("user",)]}, TypeError),
        ({"token_ids": [1.0]}, TypeError),
        ({"token_ids": [True]}, TypeError),
        ({"token_ids": [1 << 32]}, ValueError),
        ({"text": "x", "spans": [("a", 1, 1)]}, ValueError),
        ({"text": "x", "spans": [("a", -1, 1)]}, ValueError),
        ({"text": "x", "spans": {"a": (0, 1)}}, TypeError),
        ({"messages": [("user", "x")], "spans": [("a", 0, 1)]}, ValueError),
    ],
    ids=str,
)
def test_documents_that_are_none_are_refused(given, error):
    with pytest.raises(error):
        Document("a", **given)


@pytest.mark.parametrize("of", [np.int64, torch.tensor])
def test_scalars_are_ids_and_columns(of):
    """As rows of `datasets` have them, formatted for torch: an id is no `tensor(3)`."""
    made = as_document({"id": of(3), "text": "one", "columns": {"label": of(1)}}, 0)
    assert made == Document("3", "one", columns={"label": 1})
    assert as_document((of(3), "one"), 0) == Document("3", "one")
    time = np.datetime64("2024-07-26", "ns")
    assert as_document({"id": time, "text": "one"}, 0).id == str(time)


def test_numpy_ids_are_ids():
    assert Document("a", token_ids=np.arange(3)) == Document("a", token_ids=[0, 1, 2])
    assert as_document({"token_ids": np.arange(3)}, 4).id == "4"
    with pytest.raises(TypeError, match="is it a batch"):
        Document("a", token_ids=np.arange(6).reshape(2, 3))
