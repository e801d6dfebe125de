"""All errors of the client; `transport/status.py` makes them of gRPC's statuses.

```
ActvecError
 ├── InvalidArgument
 │    ├── InvalidTarget
 │    └── UnsupportedInput
 ├── FailedPrecondition
 │    ├── CorpusChanged
 │    ├── MissingExtra
 │    └── StampChanged
 ├── ServerUnavailable
 │    └── WorkerNotAwake
 ├── SourceBroken
 │    └── SourceDamaged
 └── Aborted, ClientClosed, DataLoss, DeadlineExceeded, InsecureToken, NotFound, OutOfRange,
     PermissionDenied, ProtocolError, ResourceExhausted, ServerError, Unauthenticated, Unimplemented
```
"""

# ruff: noqa: N818 - named as google.rpc names them


class ActvecError(Exception):
    """The base class of this library's errors.

    Attributes:
        code: Name of its google.rpc code.
        field: The field at fault, for example `text`; empty if there is none.
        setting: The argument to pass or to change, for example `token`; empty if none would help.
    """

    code = "UNKNOWN"

    def __init__(self, message: str, *, field: str = "", setting: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.setting = setting


class InvalidArgument(ActvecError):
    """The request is wrong; the message names the field."""

    code = "INVALID_ARGUMENT"


class OutOfRange(ActvecError):
    """A number does not fit its destination."""

    code = "OUT_OF_RANGE"


class NotFound(ActvecError):
    """There is no such corpus mean."""

    code = "NOT_FOUND"


class FailedPrecondition(ActvecError):
    """Two things do not match, for example a mean and a model."""

    code = "FAILED_PRECONDITION"


class DataLoss(ActvecError):
    """A file on disk differs from what was written."""

    code = "DATA_LOSS"


class Aborted(ActvecError):
    """Another client or process does the same work."""

    code = "ABORTED"


class Unauthenticated(ActvecError):
    """The server requires a token, and got none or a wrong one."""

    code = "UNAUTHENTICATED"


class PermissionDenied(ActvecError):
    """The token does not permit this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(ActvecError):
    """A limit is reached; the message names it."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(ActvecError):
    """No answer came within the timeout."""

    code = "DEADLINE_EXCEEDED"


class ServerUnavailable(ActvecError):
    """No server answers, or the server is shutting down."""

    code = "UNAVAILABLE"


class WorkerNotAwake(ServerUnavailable):
    """A worker did not start to serve."""


class Unimplemented(ActvecError):
    """The server does not know the call."""

    code = "UNIMPLEMENTED"


class ServerError(ActvecError):
    """The server failed unexpectedly."""

    code = "INTERNAL"


class ProtocolError(ActvecError):
    """The server violated the contract."""

    code = "INTERNAL"


class StampChanged(FailedPrecondition):
    """After a reconnection the server would compute other vectors."""


class CorpusChanged(FailedPrecondition):
    """A job was started with other documents."""


class MissingExtra(FailedPrecondition):
    """A package is not installed; the message names the extra to install."""


class UnsupportedInput(InvalidArgument):
    """This path has no readable documents."""


class SourceBroken(ActvecError):
    """A corpus or a dataset broke before its end; results of the part before it are kept."""

    code = "UNAVAILABLE"


class SourceDamaged(SourceBroken):
    """A file of a corpus is damaged or truncated; reading it again does not help."""

    code = "DATA_LOSS"


class InvalidTarget(InvalidArgument, ValueError):
    """The address of the server is not HOST:PORT."""


class InsecureToken(ActvecError):
    """A token would travel unencrypted."""

    code = "FAILED_PRECONDITION"


class ClientClosed(ActvecError):
    """The client was closed before or during a call."""

    code = "CANCELLED"
