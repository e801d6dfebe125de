"""Access: tokens, certificates, and addresses that other machines reach."""

import logging
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from actvec.server.access.access import Access
from actvec.server.access.bearer import Tokens
from actvec.server.config import AccessOptions, ServerConfig
from actvec.server.errors import StartupError
from actvec.v1 import model_pb2, service_pb2
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from tests.server.calling import bearer

TOKENS = ("correct-horse", "battery-staple")
SERVICE = service_pb2.DESCRIPTOR.services_by_name["ActivationVectorService"]
METHODS = [
    *(f"/{SERVICE.full_name}/{method.name}" for method in SERVICE.methods),
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Method",
]


@pytest.fixture
def token_file(tmp_path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# who works here\n\n" + "".join(f"  {token} \n" for token in TOKENS))
    return path


async def code_of(port: int, method: str, *messages: bytes, metadata=()) -> grpc.StatusCode:
    """How a call ends; on the wire all kinds of methods are streams of messages."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(method)(metadata=metadata)
        try:
            for message in messages:
                await call.write(message)
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS)
async def test_no_method_answers_without_a_token(serve, token_file, method):
    """The test sends no message: the refusal does not wait for one."""
    async with serve(access=AccessOptions(token_file=token_file)) as (server, _):
        assert await code_of(server.port, method) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer", "Bearer ", f"Basic {TOKENS[0]}", TOKENS[0], f"Bearer {TOKENS[0]}x"],
)
async def test_foreign_token_is_refused(serve, token_file, header):
    async with serve(access=AccessOptions(token_file=token_file)) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError, match="token") as error:
            await stub.GetModelInfo(
                model_pb2.GetModelInfoRequest(), metadata=(("authorization", header),)
            )
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_every_known_token_passes(serve, token_file):
    access = AccessOptions(token="from-the-environment", token_file=token_file)
    async with serve(access=access) as (server, stub):
        for token in (*TOKENS, "from-the-environment"):
            for scheme in ("Bearer", "bearer"):
                metadata = (("authorization", f"{scheme} {token}"),)
                info = await stub.GetModelInfo(model_pb2.GetModelInfoRequest(), metadata=metadata)
                assert info.model.model == "demo"
        method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        message = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        code = await code_of(server.port, method, message, metadata=bearer(TOKENS[0]))
        assert code is grpc.StatusCode.OK


def test_token_file_may_come_from_windows(tmp_path):
    path = tmp_path / "tokens"
    path.write_bytes("\ufeffmine\r\n".encode())
    assert Tokens(AccessOptions(token_file=path)).check("/a.Service/Method", bearer("mine"))


async def test_only_the_health_check_is_public(serve, token_file):
    """A watch is an endless stream: strangers could take the places of all streams."""
    access = AccessOptions(token_file=token_file, open_health=True)
    check = health_pb2.HealthCheckRequest().SerializeToString()
    async with serve(access=access) as (server, _):
        for method in METHODS:
            is_open = method == "/grpc.health.v1.Health/Check"
            # A refusal does not wait for a message, and gRPC's own client may fail to write one
            # before it has read the reason.
            messages = [check] if is_open else []
            code = await code_of(server.port, method, *messages)
            expected = grpc.StatusCode.OK if is_open else grpc.StatusCode.UNAUTHENTICATED
            assert code is expected, method


async def test_unknown_method_is_unimplemented(serve):
    async with serve() as (server, _):
        code = await code_of(server.port, "/no.such.Service/Method")
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_tokens_are_reloaded_whole(serve, token_file, caplog):
    async def passes(token):
        try:
            await stub.GetModelInfo(model_pb2.GetModelInfoRequest(), metadata=bearer(token))
        except grpc.aio.AioRpcError:
            return False
        return True

    async with serve(access=AccessOptions(token_file=token_file)) as (server, stub):
        token_file.write_text("new-token\n")
        assert await passes(TOKENS[0])
        server.reload()
        assert not await passes(TOKENS[0])
        assert await passes("new-token")
        token_file.write_text("# nobody\n")
        server.reload()
        assert "has no token" in caplog.text
        assert await passes("new-token")
        assert not await passes("")


async def test_no_token_is_ever_logged(serve, token_file, caplog):
    caplog.set_level(logging.DEBUG)
    access = AccessOptions(token="of-the-environment", token_file=token_file)
    async with serve(access=access) as (server, stub):
        await stub.GetModelInfo(model_pb2.GetModelInfoRequest(), metadata=bearer(TOKENS[0]))
        for token in ("of-a-stranger", f"{TOKENS[1]}-almost"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetModelInfo(model_pb2.GetModelInfoRequest(), metadata=bearer(token))
        server.reload()
    logged = caplog.text + repr(ServerConfig(access=access))
    for token in (*TOKENS, "of-the-environment", "of-a-stranger"):
        assert token not in logged


def loads(options: AccessOptions, host: str = "127.0.0.1") -> Access:
    return Access.of(ServerConfig(access=options, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
def test_public_address_needs_protection(host, token_file, authority):
    with pytest.raises(StartupError, match="everybody there could call"):
        loads(AccessOptions(), host)
    loads(AccessOptions(insecure=True), host)
    loads(AccessOptions(token="t"), host)
    loads(AccessOptions(token_file=token_file), host)
    server = authority.issue("exposed", "127.0.0.1")
    certificate = {"tls_cert": server.cert, "tls_key": server.key}
    with pytest.raises(StartupError, match="everybody there could call"):
        loads(AccessOptions(**certificate), host)
    loads(AccessOptions(**certificate, tls_client_ca=authority.pem), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_alone_needs_nothing(host):
    loads(AccessOptions(), host)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the token file .*: No such file"),
        (b"", "has no token"),
        (b"# nobody\n\n", "has no token"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"two words\n", "spaces, or characters other than printable ASCII"),
    ],
)
def test_empty_token_file_is_refused(tmp_path, content, message):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartupError, match=message):
        loads(AccessOptions(token_file=path))


def test_files_that_make_no_tls_are_refused(tmp_path, authority):
    server, other = authority.issue("one", "127.0.0.1"), authority.issue("two", "127.0.0.1")
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "ec", "-in", server.key, "-out", encrypted, "-aes128", "-passout", "pass:x"],
        check=True,
        capture_output=True,
    )
    for options, message in [
        ({"tls_cert": server.cert}, "belong together"),
        ({"tls_client_ca": authority.pem}, "needs them"),
        (
            {"tls_cert": server.cert, "tls_key": other.key},
            "key that belongs to the certificate",
        ),
        ({"tls_cert": rubbish, "tls_key": server.key}, "PEM files"),
        ({"tls_cert": server.cert, "tls_key": tmp_path / "none"}, "cannot read .*none: No such"),
        ({"tls_cert": server.cert, "tls_key": encrypted}, "encrypted with a password"),
        (
            {"tls_cert": server.cert, "tls_key": server.key, "tls_client_ca": rubbish},
            "cannot use .*rubbish",
        ),
    ]:
        with pytest.raises(StartupError, match=message):
            loads(AccessOptions(**options))


async def test_client_authority_is_enforced(serve, authority, tmp_path_factory):
    server = authority.issue("server", "127.0.0.1")
    alice = authority.issue("alice", "alice@example.org")
    stranger = type(authority)(tmp_path_factory.mktemp("strangers")).issue("eve", "eve@example.org")
    access = AccessOptions(tls_cert=server.cert, tls_key=server.key, tls_client_ca=authority.pem)

    async def call(*client: bytes) -> str:
        credentials = grpc.ssl_channel_credentials(authority.pem.read_bytes(), *client)
        async with grpc.aio.secure_channel(f"127.0.0.1:{running.port}", credentials) as channel:
            stub = ActivationVectorServiceStub(channel)
            return (await stub.GetModelInfo(model_pb2.GetModelInfoRequest())).model.model

    async with serve(access=access) as (running, plain):
        assert await call(alice.key.read_bytes(), alice.cert.read_bytes()) == "demo"
        for client in [(), (stranger.key.read_bytes(), stranger.cert.read_bytes())]:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(*client)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError):
            await plain.GetModelInfo(model_pb2.GetModelInfoRequest())


def test_sighup_reloads_tokens_and_certificates(start_server, authority, tmp_path):
    tokens, cert, key = tmp_path / "tokens", tmp_path / "cert.pem", tmp_path / "key.pem"

    def write(token, certificate):
        tokens.write_text(token)
        cert.write_bytes(certificate.cert.read_bytes())
        key.write_bytes(certificate.key.read_bytes())
        return certificate.cert.read_text()

    def presented():
        host, port = server.target.split(":")
        return ssl.get_server_certificate((host, int(port)))

    def passes(token):
        credentials = grpc.ssl_channel_credentials(authority.pem.read_bytes())
        with grpc.secure_channel(server.target, credentials) as channel:
            stub = ActivationVectorServiceStub(channel)
            try:
                stub.GetModelInfo(model_pb2.GetModelInfoRequest(), metadata=bearer(token))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                    raise
                return False
            return True

    first = write("old-token", authority.issue("before", "127.0.0.1"))
    options = (f"--token-file={tokens}", f"--tls-cert={cert}", f"--tls-key={key}")
    server = start_server(*options, env={"ACTVEC_TOKEN": "permanent-token"})
    assert presented() in first
    assert passes("old-token")
    second = write("new-token", authority.issue("after", "127.0.0.1"))
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while not passes("new-token"):
        assert time.monotonic() < deadline
    assert not passes("old-token")
    assert passes("permanent-token")
    assert presented() in second
    assert server.stop() == 0
    for token in ("old-token", "new-token", "permanent-token"):
        assert token not in server.log


def test_unprotected_program_never_loads_a_model():
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "actvec.server.program.main",
            "--host=0.0.0.0",
            "--model=/no/such/model",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "ACTVEC_TOKEN"},
    )
    assert run.returncode == 2
    assert run.stderr.startswith("actvec-server: 0.0.0.0 can be reached by other machines")
    assert "--token-file FILE or ACTVEC_TOKEN" in run.stderr
    assert len(run.stderr.splitlines()) == 1
