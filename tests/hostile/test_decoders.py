"""Impossible answers of a server: the client returns a vector, or raises its own error."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from actvec.client import ActvecError, Client
from actvec.client.errors import ProtocolError
from actvec.client.messages import means as means_wire
from actvec.client.messages import vectors as wire
from actvec.client.messages.documents import OutgoingDocument
from actvec.client.messages.model import decode_info
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Document
from actvec.server.config import Limits, ModelOptions
from actvec.server.errors import RequestError
from actvec.server.model.loading import load_model
from actvec.server.service.requests import parse_settings
from actvec.v1 import means_pb2, model_pb2, service_pb2, vectors_pb2
from tests.hostile.fuzzing import conversations, explore, messages, near

SENT = OutgoingDocument(vectors_pb2.Document(id="d", text="a text"), "0" * 64, 10)
ASKED = VectorSettings(mode="short")
INFO = decode_info(model_pb2.GetModelInfoResponse())
STAMP = vectors_pb2.VectorStamp(
    mode=vectors_pb2.MODE_SHORT,
    truncation=vectors_pb2.TRUNCATION_ERROR,
    pools=[vectors_pb2.Pool(name="exp_933", depth=0.067)],
)
VECTOR = vectors_pb2.DocumentVector(
    vector=vectors_pb2.Vector(
        dimensions=2, encoding=vectors_pb2.VECTOR_ENCODING_FLOAT32, data=bytes(8)
    ),
    tokens=3,
)


def decode_result(result):
    return wire.decode_result(result, wire.decode_stamp(STAMP, ASKED, INFO), SENT)


@pytest.mark.parametrize(
    ("decode", "proper"),
    [
        (wire.decode_values, VECTOR.vector),
        (decode_result, vectors_pb2.DocumentResult(vector=VECTOR)),
        (lambda stamp: wire.decode_stamp(stamp, ASKED, INFO), STAMP),
        (decode_info, model_pb2.GetModelInfoResponse()),
        (means_wire.decode_mean, means_pb2.CorpusMean()),
        (lambda commit: means_wire.decode_commit(commit, 0), means_pb2.CorpusMeanCommit()),
        (lambda message: means_wire.decode_progress(message, 0), means_pb2.CorpusMeanProgress()),
        (lambda part: means_wire.decode_file([part, part]), means_pb2.DownloadCorpusMeanResponse()),
    ],
    ids=["values", "result", "stamp", "info", "mean", "commit", "progress", "file"],
)
def test_answer_decodes_or_is_a_protocol_error(amount, decode, proper):
    def check(message):
        try:
            decode(message)
        except ProtocolError as error:
            assert str(error)

    explore(near(proper), check, amount(short=80, long=2000))


def test_settings_are_taken_or_name_their_field(amount):
    card = load_model(ModelOptions()).card

    def check(message):
        try:
            parse_settings(message, card, Limits(), has_bos=False)
        except RequestError as error:
            assert error.field.startswith("settings.")

    explore(messages(vectors_pb2.VectorSettings.DESCRIPTOR), check, amount(short=80, long=2000))


class Impostor(grpc.GenericRpcHandler):
    """Answers each method with the bytes set for it."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes]] = {}

    def service(self, details):
        def answer(_requests, _context):
            yield from self.answers.get(details.method.rpartition("/")[2], ())

        return grpc.stream_stream_rpc_method_handler(answer)


@pytest.fixture
def impostor():
    """A server that lies, and its address."""
    handler = Impostor()
    server = grpc.server(ThreadPoolExecutor(4), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None)


TEXTS = [Document("a", "one text"), Document("b", "another")]
OPENED = means_pb2.StreamCorpusMeanResponse(
    opened=means_pb2.CorpusMeanCommit(corpus_sha256=bytes(32))
)
FINISHED = means_pb2.StreamCorpusMeanResponse(finished=means_pb2.CorpusMean(id="m"))
RESULTS = [vectors_pb2.DocumentResult(id="a", vector=VECTOR)]
VERBS = {
    "GetModelInfo": (lambda client: client.info(), [model_pb2.GetModelInfoResponse()]),
    "ExtractVector": (
        lambda client: client.extract("a text", mode="short"),
        [vectors_pb2.ExtractVectorResponse(vector=VECTOR, stamp=STAMP)],
    ),
    "StreamVectors": (
        lambda client: list(client.stream(TEXTS, mode="short")),
        [
            vectors_pb2.StreamVectorsResponse(stamp=STAMP),
            vectors_pb2.StreamVectorsResponse(results=RESULTS),
        ],
    ),
    "StreamCorpusMean": (
        lambda client: client.corpus_mean(TEXTS, job="m"),
        [OPENED, FINISHED],
    ),
    "ListCorpusMeans": (
        lambda client: client.list_means(),
        [means_pb2.ListCorpusMeansResponse(corpus_means=[means_pb2.CorpusMean(id="m")])],
    ),
    "GetCorpusMean": (lambda client: client.get_mean("m"), [means_pb2.GetCorpusMeanResponse()]),
    "DeleteCorpusMean": (
        lambda client: client.delete_mean("m"),
        [means_pb2.DeleteCorpusMeanResponse()],
    ),
    "MergeCorpusMeans": (
        lambda client: client.merge_means(["a", "b"], name="m"),
        [means_pb2.MergeCorpusMeansResponse()],
    ),
    "DownloadCorpusMean": (
        lambda client: client.download_mean("m"),
        [
            means_pb2.DownloadCorpusMeanResponse(corpus_mean=means_pb2.CorpusMean(id="m")),
            means_pb2.DownloadCorpusMeanResponse(chunk=b"content"),
        ],
    ),
    "UploadCorpusMean": (
        lambda client: client.upload_mean(b"content", name="m"),
        [means_pb2.UploadCorpusMeanResponse()],
    ),
}


def test_an_impostor_is_asked_by_every_verb():
    methods = service_pb2.DESCRIPTOR.services_by_name["ActivationVectorService"].methods_by_name
    assert VERBS.keys() == set(methods)


@pytest.mark.parametrize("answers", [[], [b"\xff"]], ids=["nothing", "no message"])
@pytest.mark.parametrize("method", sorted(VERBS.keys() - {"StreamVectors", "StreamCorpusMean"}))
def test_missing_answer_is_a_protocol_error(impostor, method, answers):
    server, target = impostor
    server.answers = {method: answers}
    with Client(target) as client, pytest.raises(ProtocolError):
        VERBS[method][0](client)


def test_endless_list_of_means_is_a_protocol_error(impostor):
    server, target = impostor
    page = means_pb2.ListCorpusMeansResponse(next_page_token="again")
    server.answers = {"ListCorpusMeans": [page.SerializeToString()]}
    with Client(target) as client, pytest.raises(ProtocolError, match="repeats the same page"):
        client.list_means()


@pytest.mark.parametrize("method", VERBS)
def test_any_answer_raises_our_own_error(impostor, amount, method):
    server, target = impostor
    verb, proper = VERBS[method]

    # gRPC waits for the end of a unary call that is answered twice.
    with Client(target, timeout=0.05, retry_for=0) as client:

        def check(answers):
            server.answers = {"GetModelInfo": [b""], method: answers}
            try:
                verb(client)
            except ActvecError as error:
                assert str(error)

        explore(conversations(type(proper[0]), proper), check, amount(short=15, long=20))
