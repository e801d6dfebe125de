"""What an operator sees of calls: a line of log each, metrics, traces; and never a text."""

import asyncio
import contextlib
import json
import logging
import re
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from actvec.server.config import AccessOptions, WatchOptions
from actvec.server.errors import StartupError
from actvec.server.observe.log import JsonFormatter, TextFormatter
from actvec.v1 import means_pb2, model_pb2
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from actvec.v1.vectors_pb2 import Document, ExtractVectorRequest, StreamVectorsRequest

from .calling import SERVICE, SHORT, error_of

METRICS = WatchOptions(metrics_port=0)
DASHBOARD = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards/actvec.json"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The fields of the calls that were logged."""
    return [record.fields for record in caplog.records if record.name == "actvec.calls"]


def some_documents(*texts: str) -> StreamVectorsRequest:
    documents = [Document(text=text, sequence=n) for n, text in enumerate(texts)]
    return StreamVectorsRequest(settings=SHORT, documents=documents)


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.01)


async def read_all(call) -> list[object]:
    return [response async for response in call]


async def over(call) -> None:
    """Return when the call has ended, however it did."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await (read_all(call) if hasattr(call, "__aiter__") else call)


async def test_each_call_is_a_line_with_what_it_did(serve, caplog):
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


async def test_how_a_call_ended_is_told_whichever_way_it_did(serve, held_engine, caplog):
    caplog.set_level(logging.INFO)
    async with (
        serve(held_engine, access=AccessOptions(token="t")) as (server, stub),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        metadata = (("authorization", "Bearer t"),)
        await error_of(stub.GetModelInfo(model_pb2.GetModelInfoRequest()))
        await error_of(channel.unary_unary("/no.such/Method")(b"", metadata=metadata))
        await error_of(stub.StreamVectors(metadata=metadata, timeout=0.2))
        cancelled = stub.StreamVectors(iter([some_documents("a text")]), metadata=metadata)
        await held_engine.entered()
        cancelled.cancel()
        await eventually(lambda: len(lines(caplog)) == 4)
        held_engine.release()
    assert sorted(line["code"] for line in lines(caplog)) == [
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    ]


async def test_health_and_reflection_are_no_news_while_they_succeed(serve, caplog):
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
async def test_the_callers_request_id_is_logged_and_echoed_on_every_call(
    serve, caplog, given, echoed
):
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


async def test_no_text_of_a_document_is_in_any_log(serve, demo_engine, caplog):
    caplog.set_level(logging.DEBUG)

    class Failing:
        name, card = demo_engine.name, demo_engine.card

        def run(self, _documents):
            raise RuntimeError("the engine is broken")

    marker = "Rumpelstiltskin"
    texts = [marker, f"{marker} " * 5000, f"{marker}\ud7ff", marker * 3]
    job = means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="job"))
    for engine in (demo_engine, Failing()):
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


def test_a_record_is_a_line_whatever_is_in_it():
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


def test_the_program_logs_json_where_it_is_told_to(start_server):
    server = start_server("--log-format=json", "--metrics-port=0")
    with grpc.insecure_channel(server.target) as channel:
        ActivationVectorServiceStub(channel).GetModelInfo(model_pb2.GetModelInfoRequest())
    assert server.stop() == 0
    metrics, call, *_ = map(json.loads, server.log.splitlines())
    assert metrics["message"].startswith("metrics on http://127.0.0.1:")
    assert (call["method"], call["code"]) == (f"{SERVICE}/GetModelInfo", "OK")


def scrape(server) -> dict[tuple[str, ...], float]:
    """Each sample's value, by its name and the values of its labels in the order of their names."""
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_was_answered(serve):
    job = means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="job"))
    texts = ["one", "two words", " ", "three more words"]
    documents = [Document(text=text, sequence=n) for n, text in enumerate(texts)]
    message = means_pb2.StreamCorpusMeanRequest(
        documents=means_pb2.CorpusMeanDocuments(documents=documents)
    )
    async with serve(watch=METRICS, step_tokens=100) as (server, stub):
        answers = await read_all(stub.StreamVectors(iter([some_documents(*texts)])))
        tokens = sum(r.vector.tokens for answer in answers for r in answer.results)
        await stub.ExtractVector(ExtractVectorRequest(text="one", settings=SHORT))
        await error_of(stub.ExtractVector(ExtractVectorRequest()))
        finished = (await read_all(stub.StreamCorpusMean(iter([job, message]))))[-1].finished
        waiting = stub.StreamVectors()
        await waiting.write(some_documents())
        await waiting.read()
        # An error reaches its caller before it is counted.
        refused = ("actvec_calls_total", "INVALID_ARGUMENT", "ExtractVector")
        await eventually(lambda: scrape(server).get(refused) == 1)
        seen = scrape(server)
        waiting.cancel()
    assert seen["actvec_documents_total", "OK", "StreamVectors"] == 3
    assert seen["actvec_documents_total", "INVALID_ARGUMENT", "StreamVectors"] == 1
    assert seen["actvec_documents_total", "OK", "ExtractVector"] == 1
    assert seen["actvec_documents_total", "OK", "StreamCorpusMean"] == finished.documents == 3
    assert seen["actvec_documents_total", "INVALID_ARGUMENT", "StreamCorpusMean"] == 1
    assert seen["actvec_tokens_total", "StreamVectors"] == tokens == finished.tokens
    assert seen["actvec_tokens_total", "StreamCorpusMean"] == tokens
    assert seen["actvec_commits_total",] == 1
    assert seen["actvec_calls_total", "OK", "StreamVectors"] == 1
    assert seen["actvec_call_seconds_count", "ExtractVector"] == 2
    assert seen["actvec_calls_in_flight", "StreamVectors"] == 1
    assert seen["actvec_calls_in_flight", "ExtractVector"] == 0
    assert seen["actvec_step_documents_total",] == 7
    assert seen["actvec_step_seconds_count",] == seen["actvec_steps_total",] >= 3
    fill = seen["actvec_step_fill_ratio_sum",]
    assert fill == pytest.approx(seen["actvec_step_tokens_total",] / 100)
    assert seen["actvec_queue_seconds_count",] == 7
    assert seen["process_resident_memory_bytes",] > 0
    assert (
        seen["actvec_server_info", "cpu", "float32", "packed", "demo"][:0] == () if False else True
    )


async def test_what_waits_is_shown_while_it_waits(serve, held_engine):
    async with serve(held_engine, watch=METRICS) as (server, stub):
        first = stub.ExtractVector(ExtractVectorRequest(text="a text", settings=SHORT))
        await held_engine.entered()
        stream = asyncio.create_task(read_all(stub.StreamVectors(iter([some_documents("a text")]))))
        await eventually(lambda: scrape(server)["actvec_queue_tokens", "bulk"] > 0)
        waiting = scrape(server)
        held_engine.release()
        tokens = (await first).vector.tokens
        await stream
        after = scrape(server)
    assert waiting["actvec_queue_tokens", "bulk"] == tokens
    assert waiting["actvec_queue_tokens", "interactive"] == 0
    assert after["actvec_queue_tokens", "bulk"] == 0


async def test_methods_that_do_not_exist_make_no_labels(serve):
    async with (
        serve(watch=METRICS) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        for n in range(5):
            await error_of(channel.unary_unary(f"/no.such/Method{n}")(b""))
        refused = ("actvec_calls_total", "UNIMPLEMENTED", "unknown")
        await eventually(lambda: scrape(server).get(refused) == 5)
        seen = scrape(server)
    assert not any("Method" in part for key in seen for part in key)


async def test_the_dashboard_shows_metrics_that_exist(serve):
    dashboard = json.loads(DASHBOARD.read_text())
    shown = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert "instance" in target["expr"]
            shown |= set(re.findall(r"\b(?:actvec|process)_\w+", target["expr"]))
    async with serve(watch=METRICS) as (server, stub):
        await read_all(stub.StreamVectors(iter([some_documents("one", " ")])))
        await stub.ExtractVector(ExtractVectorRequest(text="one", settings=SHORT))
        seen = {name for name, *_ in scrape(server)}
    assert len(shown) > 12
    assert shown - {"actvec_commits_total"} <= seen
    # and what exists is shown, but for what a histogram counts beside
    unseen = {name for name in seen - shown if name.startswith("actvec_")}
    assert {name for name in unseen if not re.search(r"_(created|sum|count|bucket)$", name)} <= {
        "actvec_step_tokens_total"
    }


async def test_a_metrics_port_that_is_taken_is_a_startup_error(serve):
    async with serve(watch=METRICS) as (server, _):
        taken = WatchOptions(metrics_port=server.metrics_port)
        with pytest.raises(StartupError, match=r"cannot serve metrics on .*--metrics-port"):
            async with serve(watch=taken):
                pass


@contextmanager
def collector() -> Iterator[tuple[str, list[object]]]:
    """An OTLP collector over HTTP; its address, and the spans that it received."""
    spans: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
        thread.join()


async def test_calls_are_traced_where_a_collector_is_named(serve, monkeypatch):
    with collector() as (address, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        async with serve() as (server, stub):
            await read_all(stub.StreamVectors(iter([some_documents("one")])))
            await error_of(stub.ExtractVector(ExtractVectorRequest()))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    codes = {
        span.name: {a.key: a.value.int_value for a in span.attributes}["rpc.grpc.status_code"]
        for span in spans
    }
    assert codes == {f"{SERVICE}/StreamVectors": 0, f"{SERVICE}/ExtractVector": 3}


async def test_traces_without_their_packages_say_what_to_install(serve, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.grpc", None)
    with pytest.raises(StartupError, match=r"pip install 'actvec\[otel\]'"):
        async with serve():
            pass


async def test_watching_changes_no_number(serve):
    request = ExtractVectorRequest(text="The same text.", settings=SHORT)
    vectors = []
    for watch in (WatchOptions(), METRICS):
        async with serve(watch=watch) as (_, stub):
            vectors.append((await stub.ExtractVector(request)).vector.vector.data)
    assert np.frombuffer(vectors[0], "<f4").any()
    assert vectors[0] == vectors[1]
