"""A call, and the listeners to its end."""

import re
import secrets
import time
from dataclasses import dataclass, field

import grpc

from actvec.server.access.bearer import Metadata
from actvec.server.rpc.answers import Answers

REQUEST_ID = "x-request-id"

_REQUEST_ID_FORM = re.compile(r"[!-~]{1,128}")


@dataclass(eq=False)
class Call:
    """One call, while it runs and after.

    Attributes:
        id: The caller's `x-request-id`, or one made up.
        method: Its path, `/package.Service/Method`.
        known: Whether the server has such a method.
        peer: The address that it came from.
        answers: What it answered so far.
        code: How it ended; None while it runs.
        seconds: How long it took; 0 while it runs.
    """

    id: str
    method: str
    known: bool
    peer: str
    answers: Answers = field(default_factory=Answers)
    code: grpc.StatusCode | None = None
    seconds: float = 0.0
    _began: float = field(default_factory=time.perf_counter)

    @property
    def name(self) -> str:
        """The method without package and service; `unknown` if the server has no such method.

        The names are few, whatever callers ask for.
        """
        return self.method.rpartition("/")[2] if self.known else "unknown"

    @property
    def of_service(self) -> bool:
        """Whether it is of our service, and not of health or reflection."""
        return self.known and self.method.startswith("/actvec.")

    def end(self, code: grpc.StatusCode) -> None:
        """Note how it ended."""
        self.code = code
        self.seconds = time.perf_counter() - self._began


class CallListener:
    """Receives the events of calls, on the event loop; does nothing by default."""

    def began(self, call: Call) -> None:
        """A call came; nothing of it was read yet."""

    def answered(self, call: Call, answers: Answers) -> None:
        """Part of it was answered."""

    def ended(self, call: Call) -> None:
        """It is over."""


def request_id(metadata: Metadata) -> str:
    """The id that a caller gave its request, or one of our own if that cannot be used."""
    given = next((value for key, value in metadata if key == REQUEST_ID), "")
    if isinstance(given, str) and _REQUEST_ID_FORM.fullmatch(given):
        return given
    return secrets.token_hex(8)
