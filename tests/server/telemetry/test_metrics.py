"""The server's metrics in Prometheus and the dashboard, and their independence of scrapes."""

import asyncio
import json
import re
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actvec.server.config import WatchOptions
from actvec.server.errors import StartupError
from actvec.v1 import means_pb2
from actvec.v1.vectors_pb2 import (
    MODE_SHORT,
    TRUNCATION_KEEP_END,
    Document,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.server.calling import SHORT, error_of, read_all, some_documents
from tests.waiting import eventually

METRICS = WatchOptions(metrics_port=0)
DASHBOARD = Path(__file__).resolve().parents[3] / "deploy/grafana/dashboards/actvec.json"


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
    (info,) = [labels for name, *labels in seen if name == "actvec_server_info"]
    assert {"cpu", "float32", "packed", "demo"} <= set(info)


async def test_tokens_are_those_of_whole_texts(serve):
    """Truncated ones included, so that the rate does not depend on how a text is cut."""
    cut = VectorSettings(mode=MODE_SHORT, truncation=TRUNCATION_KEEP_END)
    words = " ".join(f"word{n}" for n in range(60))
    async with serve(watch=METRICS, document_tokens=20) as (server, stub):
        request = StreamVectorsRequest(settings=cut, documents=[Document(text=words)])
        answers = await read_all(stub.StreamVectors(iter([request])))
        (result,) = [one for answer in answers for one in answer.results]
        await stub.ExtractVector(ExtractVectorRequest(text=words, settings=cut))
        seen = scrape(server)
    assert result.vector.tokens > result.vector.tokens_used == 20
    assert seen["actvec_tokens_total", "StreamVectors"] == result.vector.tokens
    assert seen["actvec_tokens_total", "ExtractVector"] == result.vector.tokens


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


async def test_unknown_methods_make_no_labels(serve):
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


async def test_taken_metrics_port_is_an_error(serve, tmp_path):
    async with serve(watch=METRICS) as (server, _):
        taken = WatchOptions(metrics_port=server.metrics_port)
        with pytest.raises(StartupError, match="cannot serve metrics on"):
            async with serve(watch=taken, data_dir=tmp_path / "other"):
                pass


async def test_watching_changes_no_number(serve):
    request = ExtractVectorRequest(text="The same text.", settings=SHORT)
    vectors = []
    for watch in (WatchOptions(), METRICS):
        async with serve(watch=watch) as (_, stub):
            vectors.append((await stub.ExtractVector(request)).vector.vector.data)
    assert np.frombuffer(vectors[0], "<f4").any()
    assert vectors[0] == vectors[1]
