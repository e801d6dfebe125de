"""The connection to a server: its address, its options, and the token on every call."""

import ipaddress
import re
import ssl
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import grpc
import grpc.aio

from actvec.client.errors import InsecureToken, InvalidArgument, InvalidTarget

DEFAULT_TARGET = "127.0.0.1:50051"

# Begins the name of an app on Modal, where a worker is found or started.
MODAL = "modal://"

_HTTPS = "https://"
_PORT = re.compile(r":\d+$")

Metadata = tuple[tuple[str, str], ...]

_MEBIBYTE = 1 << 20

# A vector of any model is below a megabyte; a message of a stream holds several.
_MAX_RECEIVE_BYTES = 64 * _MEBIBYTE


@dataclass(frozen=True)
class Target:
    """The address of a server.

    Attributes:
        host: Name or IP address; an IPv6 address without its brackets.
        port: TCP port.
        encrypted: Whether the connection is TLS.
    """

    host: str
    port: int
    encrypted: bool = False

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The address that `HOST:PORT` names, or with TLS `https://HOST:PORT`.

        An IPv6 address stands in brackets; the port of https is 443 where none is given.

        Raises:
            InvalidTarget: it is not of that form.
        """
        address = text.strip().removeprefix(_HTTPS)
        encrypted = address != text.strip()
        if encrypted:
            address = address.removesuffix("/")
            address += "" if _PORT.search(address) else ":443"
        host, colon, port = address.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if (
            not colon
            or not host
            or any(c in host for c in "/[]@ ")
            or (":" in host) != bracketed
            or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
        ):
            raise InvalidTarget(
                f"{text!r} is no address of a server: write HOST:PORT, for example "
                f"{DEFAULT_TARGET}, https://HOST:PORT for one with TLS, or {MODAL}APP for an app on"
                " Modal"
            )
        return cls(host, int(port), encrypted)

    def __str__(self) -> str:
        return f"{_HTTPS if self.encrypted else ''}{self.authority}"

    @property
    def authority(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there never leaves this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a connection with TLS.

    Attributes:
        ca: Authorities that the server's certificate may be signed by; None for gRPC's own list of
            public ones.
        cert: This client's certificate chain, where the server wants one.
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
        """What a channel is opened with.

        Raises:
            InvalidArgument: a file cannot be read or is not PEM, or the key is not that of the
                certificate.
        """
        files = (self.ca, self.key, self.cert)
        try:
            ca, key, cert = (None if file is None else Path(file).read_bytes() for file in files)
            # gRPC takes anything and then fails to connect; OpenSSL says what is wrong.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password="")
        except ssl.SSLError as error:
            raise InvalidArgument(
                f"cannot use {', '.join(str(file) for file in files if file)} for TLS:"
                f" {error.reason or error}; they are PEM files, the key is that of the certificate"
                " and has no password"
            ) from error
        except OSError as error:
            raise InvalidArgument(f"cannot read {error.filename}: {error.strerror}") from error
        return grpc.ssl_channel_credentials(ca, key, cert)


def token_metadata(token: str | None, target: Target | None) -> Metadata:
    """The metadata that carries a token; empty without one.

    Args:
        token: As it was given.
        target: Where it goes; None for servers that are reached with TLS only.

    Raises:
        InvalidArgument: the token cannot be sent in a header.
        InsecureToken: it would be sent in the clear to another machine.
    """
    token = (token or "").strip()
    if not token:
        return ()
    if not (token.isascii() and token.isprintable()):
        raise InvalidArgument("a token is of printable ASCII characters")
    if target is not None and not (target.encrypted or target.is_loopback):
        raise InsecureToken(
            f"the token is not sent to {target}: the connection is not encrypted, so anybody on"
            f" the way could read it; write https://{target} where the server speaks TLS, or reach"
            " it through a tunnel to this machine, for example"
            " `ssh -L 50051:127.0.0.1:50051 HOST`"
        )
    return (("authorization", f"Bearer {token}"),)


def open_channel(target: Target, tls: TlsFiles) -> grpc.aio.Channel:
    """A channel to a server, which connects at the first call. Needs a running event loop.

    Raises:
        InvalidArgument: a file of `tls` cannot be read.
    """
    options = _options(target)
    if target.encrypted:
        return grpc.aio.secure_channel(target.authority, tls.credentials(), options=options)
    return grpc.aio.insecure_channel(target.authority, options=options)


def _options(target: Target) -> list[tuple[str, str | int]]:
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
        # Retries are this library's, which knows what was answered.
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # gRPC would send calls to this very machine through a web proxy where one is set.
        ("grpc.enable_http_proxy", 0 if target.is_loopback else 1),
        # Channels to one address share a connection unless told otherwise, so that closing
        # and breaking one client's would be felt by another.
        ("grpc.use_local_subchannel_pool", 1),
    ]
