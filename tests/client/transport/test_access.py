"""Servers that require a token, TLS or a certificate, and the client's arguments and errors."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from actvec.client import (
    AsyncClient,
    Client,
    InsecureToken,
    InvalidArgument,
    ServerUnavailable,
    TlsFiles,
    Unauthenticated,
    Vector,
)
from actvec.client.cli import main
from actvec.client.transport.address import Address
from actvec.client.transport.connection import Connection

TOKEN = "an-open-sesame"  # noqa: S105
TEXT = "The harbour freezes in some winters."


@pytest.fixture(scope="module")
def certificates(authority):
    return authority.issue("client-tests-server", "127.0.0.1")


@pytest.fixture(scope="module")
def guarded(start_server, certificates):
    """A server with TLS that requires a token."""
    options = (f"--tls-cert={certificates.cert}", f"--tls-key={certificates.key}")
    return start_server(*options, env={"ACTVEC_TOKEN": TOKEN})


@pytest.fixture(scope="module")
def exclusive(start_server, certificates, authority):
    """A server that requires its callers' certificates."""
    return start_server(
        f"--tls-cert={certificates.cert}",
        f"--tls-key={certificates.key}",
        f"--tls-client-ca={authority.pem}",
    )


@pytest.fixture
def actvec(capfd, monkeypatch):
    """Run the program in this process; return exit code, standard output and standard error."""
    for name in ("ACTVEC_TARGET", "ACTVEC_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        return ending.value.code, *capfd.readouterr()

    return run


def test_token_travels_over_tls(guarded, authority):
    tls = TlsFiles(ca=authority.pem)
    with Client(f"https://{guarded.target}", token=TOKEN, tls=tls) as client:
        alone = client.extract(TEXT, mode="short")
        results = list(client.stream([TEXT] * 3, mode="short"))
    assert all(isinstance(result, Vector) for result in results)
    assert [result.text_sha256 for result in results] == [alone.text_sha256] * 3


@pytest.mark.parametrize("token", [None, "a-wrong-one"])
def test_missing_token_is_explained(guarded, authority, token):
    tls = TlsFiles(ca=authority.pem)
    with Client(f"https://{guarded.target}", token=token, tls=tls) as client:
        for call in (client.info, lambda: list(client.stream([TEXT], mode="short"))):
            with pytest.raises(Unauthenticated, match="give the token of the server"):
                call()


async def test_the_asynchronous_client_speaks_tls_as_well(guarded, authority):
    tls = TlsFiles(ca=str(authority.pem))
    async with AsyncClient(f"https://{guarded.target}", token=TOKEN, tls=tls) as client:
        assert (await client.info()).model == "demo"


def test_unknown_authority_is_not_trusted(guarded):
    with (
        Client(f"https://{guarded.target}", token=TOKEN) as client,
        pytest.raises(ServerUnavailable, match="no authority that this client trusts"),
    ):
        client.info()


def test_tls_mismatch_is_explained(guarded, demo_server):
    with (
        Client(guarded.target, token=TOKEN) as client,
        pytest.raises(ServerUnavailable, match=r"perhaps it needs TLS \(https://\)"),
    ):
        client.info()
    with (
        Client(f"https://{demo_server.target}") as client,
        pytest.raises(ServerUnavailable, match="does not speak TLS; drop the https://"),
    ):
        client.info()


@pytest.fixture
def misnamed(authority):
    """The target of a server on 127.0.0.1 whose certificate is for another name."""
    issued = authority.issue("misnamed", "gpu.example.org")
    pair = (issued.key.read_bytes(), issued.cert.read_bytes())
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"https://127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_certificate_for_another_name_is_refused(misnamed, authority):
    with (
        Client(misnamed, tls=TlsFiles(ca=authority.pem)) as client,
        pytest.raises(ServerUnavailable, match="is for another name"),
    ):
        client.info()


def test_a_server_may_want_the_clients_certificate(exclusive, authority):
    mine = authority.issue("researcher", "researcher@example.org")
    target = f"https://{exclusive.target}"
    with Client(target, tls=TlsFiles(authority.pem, mine.cert, mine.key)) as client:
        assert client.info().model == "demo"
    with (
        Client(target, tls=TlsFiles(ca=authority.pem)) as client,
        pytest.raises(ServerUnavailable, match="perhaps it needs a certificate of this client"),
    ):
        client.info()


def test_unusable_tls_files_are_refused_first(authority, tmp_path):
    mine, other = (
        authority.issue("mine", "a@example.org"),
        authority.issue("other", "b@example.org"),
    )
    with pytest.raises(InvalidArgument, match="belong together"):
        TlsFiles(cert=mine.cert)
    with pytest.raises(InvalidArgument, match=r"write the target as https://localhost:1"):
        Client("localhost:1", tls=TlsFiles(ca=authority.pem))
    for tls, message in [
        (TlsFiles(ca=tmp_path / "none"), "cannot read .*none: No such file"),
        (TlsFiles(ca=mine.key), "PEM files"),
        (TlsFiles(cert=mine.cert, key=other.key), "the key that belongs to the certificate"),
    ]:
        with (
            Client("https://localhost:1", tls=tls) as client,
            pytest.raises(InvalidArgument, match=message),
        ):
            client.info()


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://models.example.org", Address("models.example.org", 443, encrypted=True)),
        ("https://models.example.org/", Address("models.example.org", 443, encrypted=True)),
        ("https://[::1]", Address("::1", 443, encrypted=True)),
        (" https://[::1]:8443 ", Address("::1", 8443, encrypted=True)),
        ("localhost:50051", Address("localhost", 50051)),
    ],
)
def test_an_address_may_say_https(text, target):
    assert Address.parse(text) == target
    assert Address.parse(str(target)) == target


def test_token_may_travel_over_tls():
    Client("https://models.example.org", token=TOKEN).close()


def test_program_finds_token_and_authority(actvec, guarded, authority, tmp_path, monkeypatch):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# of the group\n{TOKEN}\nanother\n")
    server = ("--target", f"https://{guarded.target}", "--tls-ca", authority.pem)
    assert actvec("info", *server, "--token", TOKEN)[0] == 0
    assert actvec("info", *server, "--token-file", tokens)[0] == 0
    assert actvec("--token-file", tokens, *server, "info")[0] == 0
    assert actvec("info", *server)[0] == 2
    monkeypatch.setenv("ACTVEC_TARGET", server[1])
    monkeypatch.setenv("ACTVEC_TLS_CA", str(authority.pem))
    monkeypatch.setenv("ACTVEC_TOKEN_FILE", str(tokens))
    assert actvec("info")[0] == 0
    monkeypatch.setenv("ACTVEC_TOKEN", "a-wrong-one")
    assert actvec("info")[0] == 2


@pytest.fixture
def sent(monkeypatch):
    """The metadata of each unary call."""
    seen = []
    unary = Connection.unary

    def noted(connection, *rest, **options):
        seen.append(dict(connection._metadata))
        return unary(connection, *rest, **options)

    monkeypatch.setattr(Connection, "unary", noted)
    return seen


def test_headers_go_with_each_call(actvec, guarded, authority, sent, monkeypatch):
    server = ("--target", f"https://{guarded.target}", "--tls-ca", authority.pem)
    monkeypatch.setenv("ACTVEC_HEADERS", "Modal-Key=wk-1, modal-secret=ws-a=b")
    assert actvec("info", *server, "--token", TOKEN)[0] == 0
    assert sent[0] == {
        "modal-key": "wk-1",
        "modal-secret": "ws-a=b",
        "authorization": f"Bearer {TOKEN}",
    }


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"grpc-timeout": "1S"}, "'grpc-timeout' cannot be the name of a header"),
        ({"key-bin": "a"}, "'key-bin' cannot be the name of a header"),
        ({"a key": "a"}, "'a key' cannot be the name of a header"),
        (
            {"key": "of\nthe tests"},
            "the value of header key has characters other than printable ASCII",
        ),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        Client("https://models.example.org", headers=headers)
    assert "of the tests" not in str(caught.value)


def test_headers_stay_off_an_open_line():
    with pytest.raises(InsecureToken, match="headers are not sent to models"):
        Client("models.example.org:50051", headers={"modal-key": "wk-1"})


@pytest.mark.parametrize("written", ["modal-key", "=wk-1"])
def test_headers_have_names_and_values(actvec, written):
    code, _, errors = actvec("info", "--target", "127.0.0.1:1", "--headers", written)
    assert code == 2
    assert "--headers / ACTVEC_HEADERS must have the form NAME=VALUE,NAME=VALUE" in errors
    assert "wk-1" not in errors


def test_the_program_takes_a_certificate(actvec, exclusive, authority):
    mine = authority.issue("of-the-program", "c@example.org")
    server = ("--target", f"https://{exclusive.target}", "--tls-ca", authority.pem)
    assert actvec("info", *server, "--tls-cert", mine.cert, "--tls-key", mine.key)[0] == 0


@pytest.mark.parametrize("content", [None, b"# none\n", b"\xff\xfe"])
def test_empty_token_file_is_wrong_usage(actvec, tmp_path, content):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    code, _, errors = actvec("info", "--token-file", path)
    assert code == 2
    assert "Error" in errors
    assert "Traceback" not in errors
