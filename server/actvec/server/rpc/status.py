"""The one place where errors become gRPC statuses, of calls and of documents."""

import errno
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from actvec.server.errors import PicklableError, StorageError

log = logging.getLogger(__name__)

# Bytes of a message. A status travels in headers, percent-encoded and in its details once more, and
# gRPC replaces it by one of its own if they reach 8 KiB.
_MESSAGE_BYTES = 1000

# The system's errors when it runs out of files, memory or buffers.
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN})


@dataclass(frozen=True)
class Status:
    """A gRPC status.

    Attributes:
        code: Its code.
        message: The error, and what to do.
        field: The request field at fault; empty if there is none.
        retry_ms: Milliseconds after which to try again; 0 if that does not help.
    """

    code: grpc.StatusCode
    message: str
    field: str = ""
    retry_ms: int = 0

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """GRPC's pushback, and google.rpc details that name the field, as tools print them."""
        if self.retry_ms:
            return (("grpc-retry-pushback-ms", str(self.retry_ms)),)
        if not self.field:
            return ()
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=self.field, description=self.message
        )
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=[detail])
        return (("grpc-status-details-bin", status.SerializeToString()),)


def status_of(error: Exception) -> Status:
    """The status of an error. The server's own faults are logged, unexpected ones in full."""
    scarce = _scarce(error)
    if scarce is not None:
        log.error("%s: %s", scarce.strerror, error)
        return Status(
            grpc.StatusCode.UNAVAILABLE,
            (
                f"the server is short of a system resource ({scarce.strerror}); try "
                "again in a moment"
            ),
        )
    if isinstance(error, StorageError):
        log.error("%s", error)
    # Messages of health and reflection that do not parse; `decoding` explains those of our service.
    code = "INVALID_ARGUMENT" if isinstance(error, DecodeError) else ""
    if isinstance(error, PicklableError):
        code = error.code
    if code:
        return Status(
            grpc.StatusCode[code],
            _shown(str(error)),
            getattr(error, "field", ""),
            getattr(error, "retry_ms", 0),
        )
    log.error("a call or document failed", exc_info=error)
    message = f"internal error ({type(error).__name__}); the server's log has the details"
    return Status(grpc.StatusCode.INTERNAL, message)


def _scarce(error: BaseException | None) -> OSError | None:
    """The system's error below an error, if the system has run out of something for now.

    Other connections may have taken it: the request and the stored files are not at fault.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _SCARCE:
            return error
        error = error.__cause__
    return None


def let_go(error: BaseException | None) -> None:
    """Clear the frames that an error passed through.

    gRPC keeps the error that ends a call in the call's context, and the frames keep the context: a
    cycle, and with it the whole request, which only the garbage collector would free.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _shown(message: str) -> str:
    """A message, without its middle if it is long: its end has the advice."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= _MESSAGE_BYTES:
        return message
    head, tail = raw[: _MESSAGE_BYTES * 3 // 4], raw[-_MESSAGE_BYTES // 4 :]
    return f"{head.decode('utf-8', 'ignore')} ... {tail.decode('utf-8', 'ignore')}"


@asynccontextmanager
async def as_status(context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[None]:
    """End the call with the status of whatever error leaves the block."""
    try:
        yield
    except (grpc.aio.BaseError, grpc.RpcError):
        # The call has its status, or is gone.
        raise
    except Exception as error:
        status = status_of(error)
        # Keep metadata that was set before, such as the request's id.
        trailers = (*context.trailing_metadata(), *status.trailing_metadata())
        await context.abort(status.code, status.message, trailers)
