"""The channel to a server: its options, its encryption, and the token on every call."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import grpc
import grpc.aio

from actvec.client.errors import InsecureToken, InvalidArgument
from actvec.client.files import given_path
from actvec.client.transport.address import Address

_HEADER = re.compile(r"[a-z0-9._-]+")

Metadata = tuple[tuple[str, str], ...]

# A vector takes at most 16 MiB, if a server keeps its default limit; a message holds several.
_MAX_RECEIVE_BYTES = 64 << 20


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a connection with TLS.

    Attributes:
        ca: Authorities that the server's certificate may be signed by; None for gRPC's own list of
            public ones.
        cert: This client's certificate chain, if the server wants one.
        key: Its private key.

    Raises:
        InvalidArgument: only one of `cert` and `key` is given.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidArgument("a client's certificate and its key belong together")

    def __bool__(self) -> bool:
        return any((self.ca, self.cert, self.key))

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials of a channel.

        Raises:
            InvalidArgument: a file cannot be read or is not PEM, or the key is not that of the
                certificate.
        """
        files = [
            None if file is None else given_path(file) for file in (self.ca, self.key, self.cert)
        ]
        ca_file, key_file, cert_file = files
        try:
            ca, key, cert = (None if file is None else file.read_bytes() for file in files)
            # gRPC accepts anything and then fails to connect; OpenSSL names the fault.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if ca_file is not None:
                context.load_verify_locations(ca_file)
            if cert_file is not None:
                context.load_cert_chain(cert_file, key_file, password="")
        except ssl.SSLError as error:
            raise InvalidArgument(
                f"cannot use {', '.join(str(file) for file in files if file)} for TLS: "
                f"{error.reason or error}; give PEM files, and the key that belongs to "
                "the certificate, without a password"
            ) from error
        except OSError as error:
            raise InvalidArgument(f"cannot read {error.filename}: {error.strerror}") from error
        return grpc.ssl_channel_credentials(ca, key, cert)


def call_metadata(
    token: str | None, headers: Mapping[str, str] | None, target: Address | None
) -> Metadata:
    """The metadata that carries a token and other headers with each call.

    Args:
        token: As it was given.
        headers: By name, as they were given; a proxy before the server may ask for some.
        target: Where they go; None for servers that are reached with TLS only.

    Raises:
        InvalidArgument: the token or a header cannot be sent.
        InsecureToken: one of them would be sent in the clear to another machine.
    """
    metadata = [(name.lower(), value) for name, value in (headers or {}).items()]
    for name, value in metadata:
        if not _HEADER.fullmatch(name) or name.startswith("grpc-") or name.endswith("-bin"):
            raise InvalidArgument(
                f"{name!r} cannot be the name of a header: use letters, digits, '.', '_' and '-',"
                " and neither grpc-... nor ...-bin",
                setting="headers",
            )
        if not (value.isascii() and value.isprintable()):
            raise InvalidArgument(
                f"the value of header {name} has characters other than printable ASCII",
                setting="headers",
            )
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise InvalidArgument(
            "the token has characters other than printable ASCII; was it copied whole?"
        )
    if token:
        metadata.append(("authorization", f"Bearer {token}"))
    if metadata and target is not None and not (target.encrypted or target.is_loopback):
        what = "the token is" if token else "headers are"
        raise InsecureToken(
            f"{what} not sent to {target}, because the connection is not "
            f"encrypted and anybody on the way could read it; write https://{target} "
            "if the server speaks TLS, or reach it through a tunnel to this "
            "machine, for example `ssh -L 50051:127.0.0.1:50051 HOST`"
        )
    return tuple(metadata)


def open_channel(target: Address, tls: TlsFiles) -> grpc.aio.Channel:
    """A channel to a server, which connects at the first call. Needs a running event loop.

    Raises:
        InvalidArgument: a file of `tls` cannot be read.
    """
    options = _options(target)
    if target.encrypted:
        return grpc.aio.secure_channel(target.authority, tls.credentials(), options=options)
    return grpc.aio.insecure_channel(target.authority, options=options)


def _options(target: Address) -> list[tuple[str, str | int]]:
    return [
        ("grpc.primary_user_agent", f"actvec/{version('actvec')}"),
        ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
        # The server names its limit and documents are held to it before they are sent.
        ("grpc.max_send_message_length", -1),
        # Pings find a dead connection and keep proxies from cutting an idle one. Pings without
        # a call, or more often, make servers answer `too_many_pings`.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        # This library retries, because it knows which documents were answered.
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # If a web proxy is set, gRPC would use it even for calls to this machine.
        ("grpc.enable_http_proxy", 0 if target.is_loopback else 1),
        # By default channels to one address share a connection, so that one client's
        # broken or closed connection would disturb another client.
        ("grpc.use_local_subchannel_pool", 1),
    ]
