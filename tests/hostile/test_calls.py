"""Any bytes to any method: every call ends with a status that somebody foresaw."""

import itertools
from collections import Counter

import grpc
import pytest
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from actvec.server.errors import RequestError
from actvec.server.rpc.decoding import Decoder
from actvec.v1 import means_pb2, model_pb2, service_pb2, vectors_pb2
from actvec.v1.vectors_pb2 import MODE_SHORT, Document, VectorSettings
from tests.hostile.fuzzing import conversations, explore, raw
from tests.hostile.target import SERVICE, UNFORESEEN

SHORT = VectorSettings(mode=MODE_SHORT)
TEXTS = [Document(id=f"d{n}", text=f"text number {n}", sequence=n) for n in range(3)]

# A correct call of each method.
PROPER = {
    "GetModelInfo": [model_pb2.GetModelInfoRequest()],
    "ExtractVector": [vectors_pb2.ExtractVectorRequest(text="a text", settings=SHORT)],
    "StreamVectors": [
        vectors_pb2.StreamVectorsRequest(settings=SHORT),
        vectors_pb2.StreamVectorsRequest(documents=TEXTS),
    ],
    "StreamCorpusMean": [
        means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="fuzz")),
        means_pb2.StreamCorpusMeanRequest(
            documents=means_pb2.CorpusMeanDocuments(documents=TEXTS[:2])
        ),
        means_pb2.StreamCorpusMeanRequest(
            skip=means_pb2.CorpusMeanSkip(sequence=2, reason="INVALID_ARGUMENT")
        ),
        means_pb2.StreamCorpusMeanRequest(finish=means_pb2.CorpusMeanFinish(documents=3)),
    ],
    "ListCorpusMeans": [means_pb2.ListCorpusMeansRequest(page_size=1, page_token="MQ==")],
    "GetCorpusMean": [means_pb2.GetCorpusMeanRequest(corpus_mean="latest")],
    "MergeCorpusMeans": [
        means_pb2.MergeCorpusMeansRequest(corpus_means=["fuzz", "latest"], name="merged")
    ],
    "DownloadCorpusMean": [means_pb2.DownloadCorpusMeanRequest(corpus_mean="latest")],
    "UploadCorpusMean": [
        means_pb2.UploadCorpusMeanRequest(
            upload=means_pb2.CorpusMeanUpload(name="fuzz", size_bytes=8, sha256="0" * 64)
        ),
        means_pb2.UploadCorpusMeanRequest(chunk=bytes(8)),
    ],
    "DeleteCorpusMean": [means_pb2.DeleteCorpusMeanRequest(corpus_mean="fuzz")],
}
CALLS = {f"{SERVICE}/{method}": messages for method, messages in PROPER.items()} | {
    "/grpc.health.v1.Health/Check": [health_pb2.HealthCheckRequest()],
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": [
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="actvec.v1.Vector")
    ],
    f"{SERVICE}/NoSuchMethod": [model_pb2.GetModelInfoRequest()],
}
NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def outcome(channel: grpc.Channel, path: str, requests: list[bytes]) -> Counter[str]:
    """How a call and each document in its answers ended."""
    ends: Counter[str] = Counter()
    call = channel.stream_stream(path)(iter(requests), timeout=60)
    try:
        for response in call:
            if path.endswith("/StreamVectors"):
                results = vectors_pb2.StreamVectorsResponse.FromString(response).results
                codes = [NAMES[result.error.code] for result in results]
                assert not UNFORESEEN.intersection(codes), results
                ends.update(f"documents {code}" for code in codes)
    except grpc.RpcError as error:
        assert error.code().name not in UNFORESEEN, error
        assert error.details() or not path.startswith(SERVICE), error
        # gRPC replaces our status by its own if ours is too long.
        assert "metadata size" not in error.details(), error
    ends[call.code().name] += 1
    return ends


def test_a_call_of_every_method_is_attacked():
    methods = service_pb2.DESCRIPTOR.services_by_name["ActivationVectorService"].methods_by_name
    assert PROPER.keys() == set(methods)


@pytest.mark.parametrize("path", CALLS, ids=[path.rpartition("/")[2] for path in CALLS])
def test_any_bytes_end_with_a_status(target, amount, path):
    first = itertools.count()
    requests = conversations(type(CALLS[path][0]), CALLS[path])

    def storm(calls):
        ends: Counter[str] = Counter()
        with grpc.insecure_channel(target.server.target) as channel:
            explore(
                requests,
                lambda sent: ends.update(outcome(channel, path, sent)),
                calls,
                first=next(first),
            )
        return ends

    target.endure(f"any bytes to {path.rpartition('/')[2]}", amount(short=60, long=1000), storm)


@pytest.mark.parametrize("method", PROPER)
def test_bytes_that_are_no_message_are_explained(amount, method):
    kind = type(PROPER[method][0])
    decoder = Decoder(kind.DESCRIPTOR, most_documents=1000)

    def check(data):
        try:
            message = kind.FromString(data)
        except DecodeError:
            with pytest.raises(RequestError) as error:
                decoder.parse(data)
            assert error.value.field
        else:
            assert decoder.parse(data) == message
            # The walk over large messages accepts all that protobuf accepts.
            decoder.walk(data)

    explore(raw(kind), check, amount(short=50, long=1000))
