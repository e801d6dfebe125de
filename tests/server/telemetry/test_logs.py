"""The log of calls for operators: one line each, and never a text."""

import json
import logging
import re

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from actvec.server.config import AccessOptions
from actvec.server.telemetry.log import JsonFormatter, TextFormatter
from actvec.v1 import means_pb2, model_pb2
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from actvec.v1.vectors_pb2 import Document, ExtractVectorRequest
from tests.conftest import NotStartedError
from tests.server.calling import SERVICE, SHORT, bearer, error_of, over, read_all, some_documents
from tests.server.engines import FailingEngine
from tests.waiting import eventually


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The fields of the logged calls."""
    return [record.fields for record in caplog.records if record.name == "actvec.calls"]


def codes(caplog: pytest.LogCaptureFixture) -> set[object]:
    """How the logged calls ended."""
    return {line["code"] for line in lines(caplog)}


async def test_each_call_is_one_line(serve, caplog):
    caplog.set_level(logging.INFO)
    async with serve() as (_, stub):
        await read_all(stub.StreamVectors(iter([some_documents("one two", " ", "three")])))
        await error_of(stub.ExtractVector(ExtractVectorRequest(text="", settings=SHORT)))
        await eventually(lambda: len(lines(caplog)) == 2)
    stream, extract = lines(caplog)
    assert stream["method"] == f"{SERVICE}/StreamVectors"
    assert (stream["documents"], stream["failed"], stream["code"]) == (3, 1, "OK")
    assert stream["tokens"] > 4
    assert stream["ms"] > 0
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", stream["peer"])
    assert (extract["documents"], extract["code"]) == (0, "INVALID_ARGUMENT")
    assert extract["id"] != stream["id"]


async def test_every_end_of_a_call_is_logged(serve, held_engine, caplog):
    caplog.set_level(logging.INFO)
    async with (
        serve(held_engine, access=AccessOptions(token="t")) as (server, stub),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        metadata = bearer("t")
        await error_of(stub.GetModelInfo(model_pb2.GetModelInfoRequest()))
        await error_of(channel.unary_unary("/no.such/Method")(b"", metadata=metadata))
        # Until one has come as far as the server.
        while "DEADLINE_EXCEEDED" not in codes(caplog):
            await error_of(stub.StreamVectors(metadata=metadata, timeout=0.2))
        cancelled = stub.StreamVectors(iter([some_documents("a text")]), metadata=metadata)
        await held_engine.entered()
        cancelled.cancel()
        await eventually(lambda: "CANCELLED" in codes(caplog))
        held_engine.release()
    assert codes(caplog) == {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }


async def test_successful_health_checks_are_not_logged(serve, caplog):
    caplog.set_level(logging.INFO)
    async with (
        serve() as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        await check(b"")
        await error_of(check(b"\x0a\x04none"))
    (failed,) = lines(caplog)
    assert failed["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("given", "echoed"),
    [("job-7/42", True), (None, False), ("x" * 129, False), ("two words", False)],
)
async def test_request_id_is_logged_and_echoed(serve, caplog, given, echoed):
    caplog.set_level(logging.INFO)
    metadata = (("x-request-id", given),) if given else ()
    async with serve() as (_, stub):
        calls = [
            stub.GetModelInfo(model_pb2.GetModelInfoRequest(), metadata=metadata),
            stub.ExtractVector(ExtractVectorRequest(), metadata=metadata),
            stub.StreamVectors(iter([some_documents("text")]), metadata=metadata),
            stub.StreamVectors(iter([]), metadata=metadata),
        ]
        ids = []
        for call in calls:
            await over(call)
            ids.append(dict(await call.trailing_metadata())["x-request-id"])
    assert sorted(ids) == sorted(line["id"] for line in lines(caplog))
    if echoed:
        assert set(ids) == {given}
    else:
        assert len(set(ids)) == len(calls)
        assert given not in ids


async def test_log_never_contains_a_text(serve, demo_engine, caplog):
    caplog.set_level(logging.DEBUG)
    failing = FailingEngine(demo_engine, RuntimeError("the engine is broken"))
    marker = "Rumpelstiltskin"
    texts = [marker, f"{marker} " * 5000, f"{marker}\ud7ff", marker * 3]
    job = means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="job"))
    for engine in (demo_engine, failing):
        async with serve(engine) as (server, stub):
            await read_all(stub.StreamVectors(iter([some_documents(*texts)])))
            for text in texts[:2]:
                request = ExtractVectorRequest(text=text, settings=SHORT)
                await over(stub.ExtractVector(request))
            documents = [Document(text=text, sequence=n) for n, text in enumerate(texts)]
            message = means_pb2.StreamCorpusMeanRequest(
                documents=means_pb2.CorpusMeanDocuments(documents=documents)
            )
            await over(stub.StreamCorpusMean(iter([job, message])))
            raw = ExtractVectorRequest(text=marker, settings=SHORT).SerializeToString()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                broken = raw.replace(marker.encode()[-2:], b"\xff\xff")
                await over(channel.unary_unary(f"{SERVICE}/ExtractVector")(broken))
    assert "the engine is broken" in caplog.text
    assert len(lines(caplog)) == 10
    assert marker[:-2] not in caplog.text


def record_of(message: str, **fields: object) -> logging.LogRecord:
    record = logging.makeLogRecord(
        {"name": "actvec.calls", "levelname": "INFO", "msg": message, "created": 0.5}
    )
    record.fields = fields
    return record


def test_record_is_always_one_line():
    record = record_of("call", id='a "b"\nc', ms=1.5, peer="ipv4:1.2.3.4:5")
    assert TextFormatter().format(record) == (
        r'1970-01-01T00:00:00.500Z INFO actvec.calls: call id="a \"b\"\nc" ms=1.5 '
        "peer=ipv4:1.2.3.4:5"
    )
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "INFO",
        "logger": "actvec.calls",
        "message": "call",
        "id": 'a "b"\nc',
        "ms": 1.5,
        "peer": "ipv4:1.2.3.4:5",
    }
    assert "\n" not in JsonFormatter().format(record)


def test_program_logs_json_on_request(start_server):
    server = start_server("--log-format=json", "--metrics-port=0")
    with grpc.insecure_channel(server.target) as channel:
        ActivationVectorServiceStub(channel).GetModelInfo(model_pb2.GetModelInfoRequest())
    assert server.stop() == 0
    metrics, serving, call, *_ = map(json.loads, server.log.splitlines())
    assert metrics["message"].startswith("metrics on http://127.0.0.1:")
    assert serving["message"].startswith("demo, revision sha256:")
    assert (call["method"], call["code"]) == (f"{SERVICE}/GetModelInfo", "OK")


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_debug_shows_why_a_start_failed(start_server, tmp_path, level):
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(NotStartedError) as ended:
        start_server(f"--model={tmp_path}", f"--log-level={level}")
    *before, last = ended.value.log.splitlines()
    assert ended.value.code == 2
    assert last.startswith(f"actvec-server: cannot read model '{tmp_path}'")
    assert ("Traceback (most recent call last):" in before) == (level == "debug")
    assert any("KeyError: 'abacus'" in line for line in before) == (level == "debug")


@pytest.mark.parametrize(
    ("level", "written"), [("debug", {"DEBUG", "INFO"}), ("info", {"INFO"}), ("warning", set())]
)
def test_level_bounds_the_log(start_server, level, written):
    server = start_server(f"--log-level={level}")
    with grpc.insecure_channel(server.target) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert server.stop() == 0
    assert {line.split()[1] for line in server.log.splitlines()} == written
