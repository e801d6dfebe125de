"""What can go wrong, each error saying what to do next; the one place that knows gRPC's codes."""

# ruff: noqa: N818 - named as google.rpc names them

from types import MappingProxyType

import grpc
import grpc.aio


class ActvecError(Exception):
    """Everything that this library raises on its own account.

    Attributes:
        code: Name of the google.rpc code that it stands for.
        field: The field at fault, for example `text`; empty where none is.
    """

    code = "UNKNOWN"

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class InvalidArgument(ActvecError):
    """The request is wrong; the message names the field."""

    code = "INVALID_ARGUMENT"


class OutOfRange(ActvecError):
    """A number does not fit where it should go."""

    code = "OUT_OF_RANGE"


class NotFound(ActvecError):
    """There is no such corpus mean."""

    code = "NOT_FOUND"


class FailedPrecondition(ActvecError):
    """Two things do not fit together, for example a mean and a model."""

    code = "FAILED_PRECONDITION"


class DataLoss(ActvecError):
    """A file on disk is not what was written there."""

    code = "DATA_LOSS"


class Aborted(ActvecError):
    """Another client is at the same work."""

    code = "ABORTED"


class Unauthenticated(ActvecError):
    """The server wants a token, or another one."""

    code = "UNAUTHENTICATED"


class PermissionDenied(ActvecError):
    """The token does not allow it."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(ActvecError):
    """A limit; the message names it."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(ActvecError):
    """No answer within the timeout."""

    code = "DEADLINE_EXCEEDED"


class ServerUnavailable(ActvecError):
    """No server answers, or the server is going down."""

    code = "UNAVAILABLE"


class WorkerNotAwake(ServerUnavailable):
    """A worker that was started, or was to be, does not serve."""


class Unimplemented(ActvecError):
    """The server does not know the call."""

    code = "UNIMPLEMENTED"


class ServerError(ActvecError):
    """The server failed in a way that it did not foresee."""

    code = "INTERNAL"


class ProtocolError(ActvecError):
    """The server answered against the contract."""

    code = "INTERNAL"


class StampChanged(FailedPrecondition):
    """After a reconnection the server makes other vectors than before it."""


class CorpusChanged(FailedPrecondition):
    """A job was begun with other documents than those it was to go on with."""


class MissingExtra(FailedPrecondition):
    """This needs a package that is not installed; the message names the extra to install."""


class UnsupportedInput(InvalidArgument):
    """Documents cannot be read from this path."""


class SourceBroken(ActvecError):
    """A corpus or a dataset could not be read on; what was made of the part before is kept."""

    code = "UNAVAILABLE"


class SourceDamaged(SourceBroken):
    """A file of a corpus is damaged or was cut short; reading it again does not help."""

    code = "DATA_LOSS"


class InvalidTarget(InvalidArgument, ValueError):
    """The address of the server is not HOST:PORT."""


class InsecureToken(ActvecError):
    """A token would travel in the clear."""

    code = "FAILED_PRECONDITION"


class ClientClosed(ActvecError):
    """The client was closed before or while it was used."""

    code = "CANCELLED"


_BY_CODE = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
        grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
        grpc.StatusCode.NOT_FOUND: NotFound,
        grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
        grpc.StatusCode.ABORTED: Aborted,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
        grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
        grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    }
)

_CODE_NAMES = MappingProxyType({code.value[0]: code.name for code in grpc.StatusCode})

# What to do next, where the server's words do not say it.
_ADVICE = MappingProxyType(
    {
        grpc.StatusCode.UNAVAILABLE: "the connection to the server at {target} is gone: {details}",
        grpc.StatusCode.UNAUTHENTICATED: (
            "{details}; give the token of the server at {target} with --token / ACTVEC_TOKEN"
        ),
        grpc.StatusCode.DEADLINE_EXCEEDED: (
            "no answer from {target} in time: the server is busy or the line slow; try again, or"
            " allow more (--timeout where the command has it, `Client(timeout=...)`)"
        ),
        grpc.StatusCode.UNIMPLEMENTED: (
            "the server at {target} does not offer this: it is no actvec server, or of another"
            " version ({details})"
        ),
    }
)

# What gRPC itself, not a server, says where no connection came about.
_NO_CONNECTION = ("failed to connect", "connection refused", "dns resolution", "errors resolving")

# What OpenSSL and gRPC say of TLS that did not come about, and what to do then.
_TLS = MappingProxyType(
    {
        "CERTIFICATE_VERIFY_FAILED": (
            "no authority that this client trusts has signed the certificate of the server at"
            " {target}; name the file of the one that has with --tls-ca / ACTVEC_TLS_CA"
        ),
        "Hostname Verification": (
            "the certificate of the server at {target} is for another name; use the name that it"
            " is for"
        ),
        "WRONG_VERSION_NUMBER": "the server at {target} does not speak TLS; leave out the https://",
    }
)

# How a broken connection reads under codes of its own: a reset stream; a call whose connection is
# gone; a message that could no longer be written, noticed before the reason for it. (CANCELLED is
# a server that stopped in mid-call: a call that is cancelled on this side raises no AioRpcError.)
_BREAKS = ("RST_STREAM", "Stream removed", "Internal error from Core")


def code_name(number: int) -> str:
    """The name of a google.rpc code, for example `INVALID_ARGUMENT` of 3."""
    return _CODE_NAMES.get(number, "UNKNOWN")


def from_rpc(error: grpc.aio.AioRpcError, target: str) -> ActvecError:
    """The error of this library for an error of gRPC; raise it `from` the original."""
    code, details = error.code(), error.details() or ""
    kind = _BY_CODE.get(code, ServerError)
    message = _message(code, details.strip() or "no reason given", target)
    if kind is ServerError:
        message += _request(error)
    return kind(message)


def is_break(error: grpc.aio.AioRpcError) -> bool:
    """Whether a stream broke, by the network or a server going down, and may be opened again."""
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return True
    return any(sign in (error.details() or "") for sign in _BREAKS)


def is_busy(error: grpc.aio.AioRpcError) -> bool:
    """Whether the server is full for now and asks to be tried again: gRPC's pushback trailer."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    return any(key == "grpc-retry-pushback-ms" for key, _ in error.trailing_metadata() or ())


def is_asleep(error: grpc.aio.AioRpcError) -> bool:
    """Whether a proxy has no server behind it, and starts one: Modal's says so with HTTP's 503."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and "status: 503" in (error.details() or "")


def _message(code: grpc.StatusCode, details: str, target: str) -> str:
    if code is grpc.StatusCode.UNAVAILABLE and any(s in details.lower() for s in _NO_CONNECTION):
        return _no_connection(details, target)
    advice = _ADVICE.get(code)
    if advice:
        return advice.format(details=details, target=target)
    if code in _BY_CODE:
        return details
    return f"the server at {target} failed: {code.name}: {details}"


def _request(error: grpc.aio.AioRpcError) -> str:
    """What to look for in the server's log."""
    trailers = dict(error.trailing_metadata() or ())
    return f" (request {trailers['x-request-id']})" if "x-request-id" in trailers else ""


def _no_connection(details: str, target: str) -> str:
    for sign, message in _TLS.items():
        if sign in details:
            return f"{message.format(target=target)} ({details})"
    if "Socket closed" in details:
        wants = "a certificate of this client" if target.startswith("https:") else "TLS (https://)"
        return (
            f"the server at {target} closes the connection; perhaps it wants {wants}, or holds as "
            f"many connections as it takes ({details})"
        )
    return (
        f"no actvec server answers at {target}; start one with `actvec-server`, or name another"
        f" with --target / ACTVEC_TARGET ({details})"
    )
