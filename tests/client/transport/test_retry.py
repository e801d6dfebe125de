"""Pauses between attempts, and the errors that are retried."""

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actvec.client.transport.reconnecting import Backoff, Reconnection
from actvec.client.transport.status import from_rpc, is_break, is_busy


@given(st.integers(1, 10_000))
def test_pauses_double_up_to_a_maximum(failures):
    pause = Backoff(initial=0.1, maximum=10).pause(failures)
    longest = min(10, 0.1 * 2 ** min(failures - 1, 50))
    assert longest / 2 <= pause <= longest


def test_patience_ends_without_progress(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    patience = Reconnection("host:1", retry_for=5)
    assert patience.pause() is not None
    now += 4.99
    assert patience.pause() <= 0.02
    now += 1
    assert patience.pause() is None
    patience.progress()
    assert patience.pause() is not None


def rpc_error(code, details="", trailing=()):
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=details
    )


@pytest.mark.parametrize(
    ("code", "details", "broken"),
    [
        ("UNAVAILABLE", "the server is shutting down", True),
        ("UNAVAILABLE", "Socket closed", True),
        ("INTERNAL", "Received RST_STREAM with error code 2", True),
        ("UNKNOWN", "Stream removed", True),
        ("CANCELLED", "Received RST_STREAM with error code 8", True),
        ("INTERNAL", "layer 26 is not finite", False),
        ("RESOURCE_EXHAUSTED", "message larger than max", False),
        ("INVALID_ARGUMENT", "settings.mode", False),
        ("UNAUTHENTICATED", "no token", False),
    ],
)
def test_a_break_is_told_from_a_refusal(code, details, broken):
    assert is_break(rpc_error(grpc.StatusCode[code], details)) is broken


def test_full_queue_differs_from_a_long_text():
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert is_busy(rpc_error(code, "full", [("grpc-retry-pushback-ms", "100")]))
    assert not is_busy(rpc_error(code, "Received message larger than max"))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_every_code_has_an_error(code):
    error = from_rpc(rpc_error(code, "because"), "host:1")
    assert "because" in str(error) or "host:1" in str(error)
    assert error.code in (code.name, "INTERNAL")
