"""The one place where errors become gRPC statuses and document errors."""

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

from actvec.server.errors import (
    BusyError,
    DoesNotFitError,
    DrainingError,
    EncodingRangeError,
    EngineError,
    IdleError,
    JobCorruptError,
    JobHeldError,
    JobMismatchError,
    MeanCorruptError,
    MeanMismatchError,
    MeanNotFoundError,
    MessageTooLargeError,
    NotFiniteError,
    RequestError,
    StorageError,
    StorageFullError,
    TextTooLargeError,
    UnauthenticatedError,
    UnknownMethodError,
    VolumeAwayError,
)
from actvec.v1 import vectors_pb2

log = logging.getLogger(__name__)

# Bytes of a message. A status travels in headers, percent-encoded and in its details once more, and
# gRPC replaces it by one of its own where they come to 8 KiB.
_MESSAGE_BYTES = 1000

# What the system says where it has no more files, memory or buffers.
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN})

# The first class that matches counts.
_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (UnknownMethodError, grpc.StatusCode.UNIMPLEMENTED),
    # Of health and reflection; bytes for our own service are explained by `decoding`.
    (DecodeError, grpc.StatusCode.INVALID_ARGUMENT),
    (TextTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (MessageTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (RequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (DoesNotFitError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (EngineError, grpc.StatusCode.INTERNAL),
    (NotFiniteError, grpc.StatusCode.INTERNAL),
    (EncodingRangeError, grpc.StatusCode.OUT_OF_RANGE),
    (MeanNotFoundError, grpc.StatusCode.NOT_FOUND),
    (MeanMismatchError, grpc.StatusCode.FAILED_PRECONDITION),
    (MeanCorruptError, grpc.StatusCode.DATA_LOSS),
    (JobMismatchError, grpc.StatusCode.FAILED_PRECONDITION),
    (JobCorruptError, grpc.StatusCode.DATA_LOSS),
    (JobHeldError, grpc.StatusCode.ABORTED),
    (StorageFullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    # A client tries again, and a job goes on after its last commit.
    (VolumeAwayError, grpc.StatusCode.UNAVAILABLE),
    (StorageError, grpc.StatusCode.INTERNAL),
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (IdleError, grpc.StatusCode.UNAVAILABLE),
    (DrainingError, grpc.StatusCode.UNAVAILABLE),
)


@dataclass(frozen=True)
class Status:
    """A gRPC status.

    Attributes:
        code: Its code.
        message: What was wrong, and what to do.
        field: The request field at fault; empty where none is.
        retry_ms: Milliseconds after which the same may be tried again; 0 where that helps nothing.
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

    def document_error(self) -> vectors_pb2.DocumentError:
        """The same as the error of one document of a stream."""
        return vectors_pb2.DocumentError(
            code=self.code.value[0], message=self.message, field=self.field
        )


def status_of(error: Exception) -> Status:
    """The status of an error. What callers cannot help is logged, the unforeseen in full."""
    scarce = _scarce(error)
    if scarce is not None:
        log.error("%s: %s", scarce.strerror, error)
        return Status(
            grpc.StatusCode.UNAVAILABLE,
            f"the server has too little of something for now ({scarce.strerror}); try again",
        )
    for kind, code in _CODES:
        if isinstance(error, kind):
            if isinstance(error, StorageError):
                log.error("%s", error)
            return Status(
                code, _shown(str(error)), getattr(error, "field", ""), getattr(error, "retry_ms", 0)
            )
    log.error("a call or document failed", exc_info=error)
    message = f"internal error ({type(error).__name__}); the server's log has the details"
    return Status(grpc.StatusCode.INTERNAL, message)


def _scarce(error: BaseException | None) -> OSError | None:
    """The error of the system below an error where it says that it has no more for now.

    Connections of others may have taken it: whatever it kept from being done, what was asked for
    and what is stored are well.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _SCARCE:
            return error
        error = error.__cause__
    return None


def _let_go(error: BaseException | None) -> None:
    """Clear what the frames of an error hold: gRPC keeps it for a while, and so a whole message."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _shown(message: str) -> str:
    """A message without its middle where it is long: it ends with what to do."""
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
        _let_go(error)
        # What was set before, such as the request's id, goes along.
        trailers = (*context.trailing_metadata(), *status.trailing_metadata())
        await context.abort(status.code, status.message, trailers)
