"""One document: the answers of `info` and `extract`, and their refusals."""

import asyncio
import socket

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actvec.client import (
    AsyncClient,
    Client,
    ClientClosed,
    DeadlineExceeded,
    Document,
    InsecureToken,
    InvalidArgument,
    InvalidTarget,
    NotFound,
    ResourceExhausted,
    ServerUnavailable,
    VectorSettings,
)
from actvec.client.transport.address import Address

TEXT = "A river carries more silt in spring than in late summer."


def test_info_names_the_model_and_its_limits(client):
    info = client.info()
    assert info.model == "demo"
    assert info.layers == tuple(range(info.layers[0], info.layers[0] + 3))
    assert info.n_layers_loaded == info.layers[-1] + 1
    assert info.hook == "resid_post"
    assert {mode.mode: mode.dimensions for mode in info.modes} == {
        "short": info.d_model,
        "long": 4 * info.d_model,
    }
    assert info.limits.max_text_bytes > 0
    assert info.versions.torch


def test_long_vector_has_four_named_pools(client):
    width = client.info().d_model
    short = client.extract(TEXT, mode="short")
    long = client.extract(TEXT, mode="long")
    assert short.values.shape == (width,)
    assert long.values.shape == (4 * width,)
    assert long.values.dtype == np.float32
    assert list(long.pools) == ["last", "exp_977", "exp_933", "exp_841"]
    assert_array_equal(long.matrix, np.stack(list(long.pools.values())))
    assert_array_equal(long.pools["exp_933"], short.values)


def test_a_vector_is_read_only(client):
    vector = client.extract(TEXT, mode="short")
    with pytest.raises(ValueError, match="read-only"):
        vector.values[0] = 0


def test_stamp_holds_all_that_a_vector_depends_on(client):
    info = client.info()
    vector = client.extract(Document("silt", TEXT), mode="long", truncation="end")
    stamp = vector.stamp
    assert vector.id == "silt"
    assert (stamp.model, stamp.revision, stamp.layers) == (info.model, info.revision, info.layers)
    assert (stamp.mode, stamp.truncation, stamp.prepend_bos) == ("long", "end", True)
    assert [(pool.name, pool.depth) for pool in stamp.pools][:2] == [
        ("last", 0),
        ("exp_977", 0.023),
    ]
    assert not stamp.centered
    assert stamp.to_dict()["layers"] == list(info.layers)


def test_bos_is_an_optional_token(client):
    with_bos = client.extract(TEXT, mode="short")
    without = client.extract(TEXT, mode="short", prepend_bos=False)
    assert with_bos.tokens == without.tokens + 1
    assert not without.stamp.prepend_bos


def test_every_encoding_carries_the_same_numbers(client):
    float32 = client.extract(TEXT, mode="long", encoding="float32").values
    values = client.extract(TEXT, mode="long", encoding="values").values
    float16 = client.extract(TEXT, mode="long", encoding="float16").values
    assert_array_equal(values, float32)
    assert_array_equal(float16, float32.astype(np.float16).astype(np.float32))


def test_text_over_the_context_obeys_truncation(client):
    context = client.info().limits.max_tokens
    text = "river " * (2 * context)
    with pytest.raises(InvalidArgument, match=str(context)):
        client.extract(text, mode="short")
    start = client.extract(text, mode="short", truncation="start")
    assert start.truncated
    assert start.tokens_used == context < start.tokens


def test_blank_text_is_refused_by_field(client):
    with pytest.raises(InvalidArgument, match="text"):
        client.extract(" \n", mode="short")


def test_text_over_the_byte_limit_never_travels(client):
    limit = client.info().limits.max_text_bytes
    with pytest.raises(ResourceExhausted, match=rf"'big'.*{limit}.*max_text_bytes") as refusal:
        client.extract(Document("big", "x" * (limit + 1)), mode="short")
    assert refusal.value.__cause__ is None


def test_half_of_a_surrogate_pair_is_refused(client):
    with pytest.raises(InvalidArgument, match="surrogate"):
        client.extract("a \ud800 b", mode="short")


def test_an_unknown_mean_is_refused(client):
    with pytest.raises(NotFound):
        client.extract(TEXT, mode="short", center="no-such-mean")


@pytest.mark.parametrize("one", [TEXT, TEXT.encode(), {"text": TEXT}, Document("a", TEXT)])
def test_single_document_is_no_corpus(client, one):
    for ask in (lambda: client.vectors(one, mode="short"), lambda: client.corpus_mean(one)):
        with pytest.raises(TypeError, match="takes an iterable of documents; extract takes"):
            ask()


def test_data_frame_is_no_corpus(client):
    """Its columns' names would count as documents."""
    frame = pd.DataFrame({"text": [TEXT], "label": ["silt"]})
    with pytest.raises(TypeError, match=r"iter_rows\(named=True\) of polars"):
        client.vectors(pl.from_pandas(frame), mode="short")
    for ask in (lambda: client.vectors(frame, mode="short"), lambda: client.corpus_mean(frame)):
        with pytest.raises(TypeError, match=r"frame\['text'\], or rows as dicts"):
            ask()
    assert client.vectors(frame["text"], mode="short").ids == ["0"]
    assert client.vectors(frame.to_dict("records"), mode="short").ids == ["0"]


def test_missing_texts_of_a_series_fail_alone(client):
    frame = pd.DataFrame({"id": ["a", None, "c"], "text": [TEXT, None, TEXT]})
    pairs = list(zip(range(3), frame["text"], strict=True))
    rows = frame.to_dict("records")
    for given in (frame["text"], frame["text"].astype(object), [TEXT, pd.NA, TEXT], pairs, rows):
        array, ids, failures = client.vectors(given, mode="short")
        assert len(array) == 2
        assert ids[0] in {"0", "a"}
        assert [(one.id, one.field) for one in failures] == [("1", "text")]


def test_path_is_no_corpus(client, tmp_path):
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(TypeError, match="open_documents reads those of a file or a folder"):
            client.vectors(path, mode="short")
    with pytest.raises(TypeError, match=r"document 1: .*not PosixPath"):
        client.vectors([TEXT, tmp_path], mode="short")


@pytest.mark.parametrize("text", [None, 5, b"bytes"])
def test_a_text_is_a_str(client, text):
    with pytest.raises(TypeError, match=type(text).__name__):
        client.extract(text, mode="short")
    with pytest.raises(TypeError, match="None" if text is None else type(text).__name__):
        Document("id", text)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mode": "medium"}, "mode is one of short, long, not 'medium'"),
        ({"mode": "short", "truncation": "middle"}, "truncation is one of error, start, end"),
        ({"mode": "short", "encoding": "int8"}, "encoding is one of float32, float16, values"),
        ({"mode": "short", "center": ""}, "center"),
    ],
)
def test_unknown_settings_are_refused_at_once(client, setting, message):
    with pytest.raises(ValueError, match=message):
        client.extract(TEXT, **setting)
    with pytest.raises(ValueError, match=message):
        client.stream([TEXT], **setting)


def test_settings_are_given_whole_or_by_name(client):
    settings = VectorSettings(mode="long", truncation="end", prepend_bos=False)
    whole = client.extract(TEXT, settings)
    by_name = client.extract(TEXT, mode="long", truncation="end", prepend_bos=False)
    assert whole.stamp == by_name.stamp
    assert_array_equal(whole.values, by_name.values)
    (streamed,) = client.stream([TEXT], settings)
    assert streamed.stamp == whole.stamp
    for ask in (lambda **given: client.extract(TEXT, **given), lambda **g: client.stream([], **g)):
        with pytest.raises(TypeError, match="give settings, or mode by name, not both"):
            ask(settings=settings, mode="long")
        with pytest.raises(TypeError, match="unexpected keyword argument 'pool'"):
            ask(mode="long", pool="last")
        with pytest.raises(ValueError, match="say which pools a vector has"):
            ask()


def test_absent_server_is_reported_soon():
    """Not only after the time that a call may take."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        with Client(target, timeout=3600) as client, pytest.raises(ServerUnavailable) as error:
            client.info()
    assert f"no actvec server answers at {target}" in str(error.value)
    assert "actvec-server" in str(error.value)
    assert error.value.setting == "target"
    assert error.value.__cause__ is not None


def test_silent_server_is_given_up_at_the_deadline():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3) as client,
        pytest.raises((DeadlineExceeded, ServerUnavailable)),
    ):
        client.info()


def test_a_short_interruption_is_not_noticed(demo_server, cutting_proxy):
    proxy = cutting_proxy(demo_server.target)
    with Client(proxy.target) as client:
        client.info()
        proxy.cut()
        assert client.extract(TEXT, mode="short").tokens > 1


@pytest.mark.parametrize(
    "target", ["", "host", ":1", "host:0", "host:65536", "http://h:1", "::1:5"]
)
def test_an_address_is_host_and_port(target):
    with pytest.raises(InvalidTarget, match="HOST:PORT"):
        Client(target)


def test_token_never_travels_unencrypted():
    with pytest.raises(InsecureToken, match="not encrypted"):
        Client("models.example.org:50051", token="secret")
    for host in LOOPBACK:
        Client(f"{host}:1", token="secret").close()


# Spellings of this machine's own address.
LOOPBACK = (
    *("127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "Localhost"),
    *("[::1]", "[0:0::1]", "[::ffff:127.0.0.1]"),
)


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_goes_through_no_proxy(demo_server, monkeypatch, host):
    port = demo_server.target.rpartition(":")[2]
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Address.parse(f"{host}:{port}").is_loopback
    if host in {"127.0.0.1", "localhost", "LOCALHOST"}:
        with Client(f"{host}:{port}", timeout=30) as client:
            assert client.info().model == "demo"


@pytest.mark.parametrize(
    "host", ["localhost.example.org", "localhost.", "127.1", "10.0.0.1", "[fe80::1]"]
)
def test_other_machines_are_no_loopback(host):
    assert not Address.parse(f"{host}:1").is_loopback


def test_a_closed_client_says_so(demo_server):
    client = Client(demo_server.target)
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.info()


async def test_async_calls_run_side_by_side(demo_server):
    async with AsyncClient(demo_server.target) as client:
        texts = [f"{TEXT} {number}" for number in range(20)]
        together = await asyncio.gather(*(client.extract(text, mode="short") for text in texts))
        alone = await client.extract(texts[7], mode="short")
    assert_array_equal(together[7].values, alone.values)
    assert len({vector.text_sha256 for vector in together}) == 20


async def test_sync_client_works_inside_a_running_loop(demo_server):
    with Client(demo_server.target) as client:
        vector = client.extract(TEXT, mode="short")
    assert_allclose(vector.norm, np.linalg.norm(vector.values), rtol=1e-6)


async def test_closing_an_async_client_ends_its_calls(demo_server):
    client = AsyncClient(demo_server.target)
    await client.info()
    call = asyncio.create_task(client.extract("river " * 2000, mode="short", truncation="end"))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ClientClosed):
        await call
