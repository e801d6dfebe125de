"""The connection to a server: its address, its options, and the token on every call."""

import ipaddress
from dataclasses import dataclass
from importlib.metadata import version

import grpc
import grpc.aio

from actvec.client.errors import InsecureToken, InvalidArgument, InvalidTarget

DEFAULT_TARGET = "127.0.0.1:50051"

_MEBIBYTE = 1 << 20

# A vector of any model is below a megabyte; a message of a stream holds several.
_MAX_RECEIVE_BYTES = 64 * _MEBIBYTE


@dataclass(frozen=True)
class Target:
    """The address of a server.

    Attributes:
        host: Name or IP address; an IPv6 address without its brackets.
        port: TCP port.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The address that `HOST:PORT` names; IPv6 as `[ADDRESS]:PORT`.

        Raises:
            InvalidTarget: it is not of that form.
        """
        host, colon, port = text.strip().rpartition(":")
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
                f"{text!r} is no address of a server: write HOST:PORT, for example {DEFAULT_TARGET}"
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there never leaves this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def token_metadata(token: str | None, target: Target) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token; empty without one.

    Raises:
        InvalidArgument: the token cannot be sent in a header.
        InsecureToken: it would be sent in the clear to another machine.
    """
    token = (token or "").strip()
    if not token:
        return ()
    if not (token.isascii() and token.isprintable()):
        raise InvalidArgument("a token is of printable ASCII characters")
    if not target.is_loopback:
        raise InsecureToken(
            f"the token is not sent to {target}: the connection is not encrypted, so anybody on"
            " the way could read it; reach the server through a tunnel to this machine, for"
            " example `ssh -L 50051:127.0.0.1:50051 HOST`"
        )
    return (("authorization", f"Bearer {token}"),)


def open_channel(target: Target) -> grpc.aio.Channel:
    """A channel to a server, which connects at the first call. Needs a running event loop."""
    return grpc.aio.insecure_channel(
        str(target),
        options=[
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
        ],
    )
