"""Servers that want a token, TLS, or a certificate: what a client gives, and what it says."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from actvec.client import (
    AsyncClient,
    Client,
    InvalidArgument,
    ServerUnavailable,
    TlsFiles,
    Unauthenticated,
    Vector,
)
from actvec.client.channel import Target
from actvec.client.cli import main

TOKEN = "an-open-sesame"  # noqa: S105
TEXT = "The harbour freezes in some winters."


@pytest.fixture(scope="module")
def certificates(authority):
    return authority.issue("client-tests-server", "127.0.0.1")


@pytest.fixture(scope="module")
def guarded(start_server, certificates):
    """A server with TLS that wants a token."""
    options = (f"--tls-cert={certificates.cert}", f"--tls-key={certificates.key}")
    return start_server(*options, env={"ACTVEC_TOKEN": TOKEN})


@pytest.fixture(scope="module")
def exclusive(start_server, certificates, authority):
    """A server that wants its callers' certificates."""
    return start_server(
        f"--tls-cert={certificates.cert}",
        f"--tls-key={certificates.key}",
        f"--tls-client-ca={authority.pem}",
    )


@pytest.fixture
def actvec(capfd, monkeypatch):
    """Run the program in this process; exit code, standard output and standard error."""
    for name in ("ACTVEC_TARGET", "ACTVEC_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        return ending.value.code, *capfd.readouterr()

    return run


def test_unary_calls_and_streams_carry_the_token_over_tls(guarded, authority):
    tls = TlsFiles(ca=authority.pem)
    with Client(f"https://{guarded.target}", token=TOKEN, tls=tls) as client:
        alone = client.extract(TEXT, mode="short")
        results = list(client.stream([TEXT] * 3, mode="short"))
    assert all(isinstance(result, Vector) for result in results)
    assert [result.text_sha256 for result in results] == [alone.text_sha256] * 3


@pytest.mark.parametrize("token", [None, "a-wrong-one"])
def test_without_the_token_each_call_says_how_to_give_one(guarded, authority, token):
    tls = TlsFiles(ca=authority.pem)
    with Client(f"https://{guarded.target}", token=token, tls=tls) as client:
        for call in (client.info, lambda: list(client.stream([TEXT], mode="short"))):
            with pytest.raises(Unauthenticated, match=r"--token.*ACTVEC_TOKEN"):
                call()


async def test_the_asynchronous_client_speaks_tls_as_well(guarded, authority):
    tls = TlsFiles(ca=str(authority.pem))
    async with AsyncClient(f"https://{guarded.target}", token=TOKEN, tls=tls) as client:
        assert (await client.info()).model == "demo"


def test_a_server_of_a_strange_authority_is_not_trusted(guarded):
    with (
        Client(f"https://{guarded.target}", token=TOKEN) as client,
        pytest.raises(ServerUnavailable, match=r"no authority that this client trusts.*--tls-ca"),
    ):
        client.info()


def test_tls_and_no_tls_do_not_understand_each_other_and_say_so(guarded, demo_server):
    with (
        Client(guarded.target, token=TOKEN) as client,
        pytest.raises(ServerUnavailable, match=r"perhaps it wants TLS \(https://\)"),
    ):
        client.info()
    with (
        Client(f"https://{demo_server.target}") as client,
        pytest.raises(ServerUnavailable, match="does not speak TLS; leave out the https://"),
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
        pytest.raises(ServerUnavailable, match="perhaps it wants a certificate of this client"),
    ):
        client.info()


def test_files_that_make_no_tls_are_refused_before_anything_is_sent(authority, tmp_path):
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
        (TlsFiles(cert=mine.cert, key=other.key), "the key is that of the certificate"),
    ]:
        with (
            Client("https://localhost:1", tls=tls) as client,
            pytest.raises(InvalidArgument, match=message),
        ):
            client.info()


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://models.example.org", Target("models.example.org", 443, encrypted=True)),
        ("https://models.example.org/", Target("models.example.org", 443, encrypted=True)),
        ("https://[::1]", Target("::1", 443, encrypted=True)),
        (" https://[::1]:8443 ", Target("::1", 8443, encrypted=True)),
        ("localhost:50051", Target("localhost", 50051)),
    ],
)
def test_an_address_may_say_https(text, target):
    assert Target.parse(text) == target
    assert Target.parse(str(target)) == target


def test_a_token_may_travel_to_another_machine_over_tls():
    Client("https://models.example.org", token=TOKEN).close()


def test_the_program_takes_the_token_and_the_authority_from_flags_files_and_the_environment(
    actvec, guarded, authority, tmp_path, monkeypatch
):
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


def test_the_program_takes_a_certificate(actvec, exclusive, authority):
    mine = authority.issue("of-the-program", "c@example.org")
    server = ("--target", f"https://{exclusive.target}", "--tls-ca", authority.pem)
    assert actvec("info", *server, "--tls-cert", mine.cert, "--tls-key", mine.key)[0] == 0


@pytest.mark.parametrize("content", [None, b"# none\n", b"\xff\xfe"])
def test_a_token_file_without_a_token_is_wrong_usage(actvec, tmp_path, content):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    code, _, errors = actvec("info", "--token-file", path)
    assert code == 2
    assert "Error" in errors
    assert "Traceback" not in errors
