"""gRPC's statuses as errors of this library: the one place that knows gRPC's codes."""

from types import MappingProxyType

import grpc
import grpc.aio

from actvec.client.errors import (
    Aborted,
    ActvecError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    ServerError,
    ServerUnavailable,
    Unauthenticated,
    Unimplemented,
)

_BY_CODE = MappingProxyType(
    {
        grpc.StatusCode[kind.code]: kind
        for kind in (
            *(InvalidArgument, OutOfRange, NotFound, FailedPrecondition, Aborted, Unauthenticated),
            *(PermissionDenied, ResourceExhausted, DeadlineExceeded, ServerUnavailable),
            Unimplemented,
        )
    }
)

_CODE_NAMES = MappingProxyType({code.value[0]: code.name for code in grpc.StatusCode})

# What to do next, if the server does not say it, and the setting to change.
_ADVICE = MappingProxyType(
    {
        ServerUnavailable: ("lost the connection to the server at {target}: {details}", ""),
        Unauthenticated: ("{details}; give the token of the server at {target}", "token"),
        DeadlineExceeded: (
            "no answer from {target} in time: the server is busy or the connection slow; try again,"
            " or allow more time",
            "timeout",
        ),
        Unimplemented: (
            "the server at {target} does not offer this: it is not an actvec server, or has another"
            " version ({details})",
            "",
        ),
    }
)

# The words of gRPC itself, not of a server, if no connection was made.
_NO_CONNECTION = ("failed to connect", "connection refused", "dns resolution", "errors resolving")

# The words of OpenSSL and gRPC about a failed TLS handshake, the advice, and the setting to change.
_TLS = MappingProxyType(
    {
        "CERTIFICATE_VERIFY_FAILED": (
            "no authority that this client trusts signed the certificate of the server at {target};"
            " name the file of the one that did",
            "tls_ca",
        ),
        "Hostname Verification": (
            "the certificate of the server at {target} is for another name; use that name",
            "target",
        ),
        "WRONG_VERSION_NUMBER": (
            "the server at {target} does not speak TLS; drop the https://",
            "target",
        ),
    }
)

# Signs of a broken connection under other codes: a reset stream; a call whose connection is gone; a
# message that could no longer be written, noticed before the reason. (CANCELLED means that the
# server stopped during a call: a call cancelled on this side raises no AioRpcError.)
_BREAKS = ("RST_STREAM", "Stream removed", "Internal error from Core")


def code_name(number: int) -> str:
    """The name of a google.rpc code, for example `INVALID_ARGUMENT` for 3."""
    return _CODE_NAMES.get(number, "UNKNOWN")


def from_rpc(error: grpc.aio.AioRpcError, target: str) -> ActvecError:
    """Convert an error of gRPC to one of this library; raise it `from` the original."""
    code, details = error.code(), (error.details() or "").strip() or "no reason given"
    kind = _BY_CODE.get(code)
    if kind is None:
        message = f"the server at {target} failed: {code.name}: {details}{_request(error)}"
        return ServerError(message)
    if kind is ServerUnavailable and any(sign in details.lower() for sign in _NO_CONNECTION):
        message, setting = _no_connection(details, target)
    elif kind in _ADVICE:
        advice, setting = _ADVICE[kind]
        message = advice.format(details=details, target=target)
    else:
        message, setting = details, ""
    return kind(message, setting=setting)


def is_break(error: grpc.aio.AioRpcError) -> bool:
    """Whether the network or a server broke a stream, so that it may be opened again."""
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return True
    return any(sign in (error.details() or "") for sign in _BREAKS)


def is_busy(error: grpc.aio.AioRpcError) -> bool:
    """Whether the server is full for now and suggests a retry, by gRPC's pushback trailer."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    return any(key == "grpc-retry-pushback-ms" for key, _ in error.trailing_metadata() or ())


def is_asleep(error: grpc.aio.AioRpcError) -> bool:
    """Whether a proxy has no server behind it, and starts one: Modal's answers with HTTP's 503."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and "status: 503" in (error.details() or "")


def _request(error: grpc.aio.AioRpcError) -> str:
    """The id under which the server's log has the request."""
    trailers = dict(error.trailing_metadata() or ())
    return f" (request {trailers['x-request-id']})" if "x-request-id" in trailers else ""


def _no_connection(details: str, target: str) -> tuple[str, str]:
    """What went wrong and what to do next, and the setting to change."""
    for sign, (message, setting) in _TLS.items():
        if sign in details:
            return f"{message.format(target=target)} ({details})", setting
    if "Socket closed" in details:
        wants = "a certificate of this client" if target.startswith("https:") else "TLS (https://)"
        return (
            f"the server at {target} closes the connection; perhaps it needs {wants}, or has as"
            f" many connections as it accepts ({details})",
            "",
        )
    return (
        f"no actvec server answers at {target}; start one with `actvec-server`, or name another"
        f" ({details})",
        "target",
    )
