"""Where a server is: at a given address, or wherever a search finds it."""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from actvec.client.errors import InvalidTarget
from actvec.client.transport.seconds import checked_seconds

DEFAULT_TARGET = "127.0.0.1:50051"

# Begins the name of an app on Modal, where a worker is found or started.
MODAL = "modal://"

_HTTPS = "https://"
_PORT = re.compile(r":\d+$")

# Called at each look with the seconds waited for a worker, and with the current finding.
OnWait = Callable[[float, str], None]


@dataclass(frozen=True)
class Address:
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
    def parse(cls, text: str) -> "Address":
        """The address that `HOST:PORT` names, or with TLS `https://HOST:PORT`.

        An IPv6 address stands in brackets; the default port of https is 443.

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
                f"{text!r} is not the address of a server: write HOST:PORT, for example "
                f"{DEFAULT_TARGET}, https://HOST:PORT for one with TLS, or {MODAL}APP "
                "for an app on Modal"
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
        """Whether the connection never leaves this machine.

        Spellings that gRPC asks the network's name server for, as 127.1 and `localhost.`, are not.
        """
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return self.host.lower() == "localhost"
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@dataclass(frozen=True)
class Waking:
    """How long to wait for a server to wake up.

    Attributes:
        seconds: The longest wait.
        on_wait: Called at each look with the seconds waited and the current finding.
        every: Seconds between two looks.

    Raises:
        ValueError: a time is negative or NaN, or `every` is 0.
        TypeError: a time is not a number.
    """

    seconds: float = 900.0
    on_wait: OnWait | None = None
    every: float = 1.0

    def __post_init__(self) -> None:
        # An infinite limit is no limit.
        seconds = checked_seconds("Waking.seconds", self.seconds, zero=True)
        object.__setattr__(self, "seconds", seconds)
        if math.isinf(checked_seconds("Waking.every", self.every)):
            raise ValueError("Waking.every must be finite; give the seconds between two reports")

    def tell(self, seconds: float, what: str) -> None:
        """Report a wait, if anybody listens."""
        if self.on_wait is not None:
            self.on_wait(seconds, what)


class Resolver(Protocol):
    """The target of a connection.

    Attributes:
        moves: Whether the server may be elsewhere after a connection to it broke.
    """

    moves: bool

    async def find(self) -> Address:
        """The address at which the server is now; may start it, and wait for it.

        Raises:
            ActvecError: it is nowhere.
        """


class FixedPlace:
    """An address that was given."""

    moves = False

    def __init__(self, target: Address) -> None:
        self._target = target

    def __str__(self) -> str:
        return str(self._target)

    async def find(self) -> Address:
        """The address."""
        return self._target
