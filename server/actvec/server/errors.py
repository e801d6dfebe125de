"""All errors of the server, in the words of the part that raises them.

Nothing here knows gRPC: each error names its code, `rpc.status` turns it into a status, and
`program.main` into an exit code.

Longer than other modules because it is a list.
"""

from typing import Any, Self


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class PicklableError(Exception):
    """An error that another process can raise again, as Modal does with those of its workers.

    Attributes:
        code: The name of its google.rpc code; empty if it never reaches a caller.
    """

    code = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Without calling the class, whose arguments are not the message.
        return self._again, (str(self), self.__dict__)

    @classmethod
    def _again(cls, message: str, attributes: dict[str, Any]) -> Self:
        error = cls.__new__(cls, message)
        error.__dict__.update(attributes)
        return error


class StartupError(PicklableError):
    """The server cannot start: a model, a port or an option is unusable.

    Attributes:
        setting: The setting to change, as named in `config`; empty if none would help.
    """

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class UnauthenticatedError(PicklableError):
    """The caller sent no token, or an unknown one."""

    code = "UNAUTHENTICATED"


class UnknownMethodError(PicklableError):
    """The server has no such method."""

    code = "UNIMPLEMENTED"

    def __init__(self, method: str) -> None:
        super().__init__(f"this server has no method {method}")


class InputError(PicklableError):
    """A caller's input is unusable: a document, a name, a file.

    Attributes:
        part: The input, as the function that refuses it calls it, for example `text`. `service`
            knows which field of a request it came from.
        reason: Why it is unusable.
    """

    code = "INVALID_ARGUMENT"

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


class TextTooLargeError(InputError):
    """A text has more bytes than the server accepts."""

    code = "RESOURCE_EXHAUSTED"


class RequestError(InputError):
    """A request, or one document of it, asks for something impossible.

    Attributes:
        field: The request field at fault, as in the contract, for example `settings.mode`.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field

    @classmethod
    def of(cls, error: InputError, field: str) -> "RequestError":
        """Attribute an error to a field; the code stays."""
        if isinstance(error, RequestError):
            return error
        named = cls(field, error.reason)
        named.code = error.code
        return named


class VectorTooLargeError(RequestError):
    """A vector would have more numbers than the server allows."""

    code = "RESOURCE_EXHAUSTED"


class MessageTooLargeError(RequestError):
    """A message, or the upload that it announces, is larger than the server accepts."""

    code = "RESOURCE_EXHAUSTED"


class NotFiniteError(PicklableError):
    """A document's states are not finite: it has no vector.

    Attributes:
        layer: The first requested layer whose state is not finite; None if only the mean over
            layers is not finite.
    """

    code = "INTERNAL"

    def __init__(self, layer: int | None, hook: str = "resid_post") -> None:
        where = "the mean over the layers" if layer is None else f"layer {layer}"
        super().__init__(
            f"the state {hook} of {where} is not finite for this document; "
            "float32 and bfloat16 hold larger values than float16"
        )
        self.layer = layer


class DoesNotFitError(PicklableError):
    """There is no memory for a document, not even for it alone."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, tokens: int) -> None:
        super().__init__(
            f"the server has no memory for this document of {tokens} tokens; send a "
            "shorter one, or try again when the server has less to do"
        )


class SumsTooLargeError(PicklableError):
    """There is no memory for the sums of a mean."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, size: str, device: str, free: str) -> None:
        super().__init__(
            f"the sums of this mean would take up to {size} of memory on {device}, where {free} "
            "are free: ask for fewer layers at a time, or without variance"
        )


class EngineError(PicklableError):
    """The engine failed on a step."""

    code = "INTERNAL"

    def __init__(self, kind: str) -> None:
        super().__init__(f"the engine failed ({kind}); the server's log has the details")


class EngineLostError(PicklableError):
    """The engine hangs, or its device is lost: only a new process can continue."""


class CutShortError(PicklableError):
    """The server ended before it had finished everything it had accepted."""


class LeftOutError(PicklableError):
    """A client could not send a document of a job, and named the code itself."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EncodingRangeError(PicklableError):
    """The requested encoding cannot hold a number of the vector."""

    code = "OUT_OF_RANGE"


class BusyError(PicklableError):
    """The server is at its capacity.

    Attributes:
        retry_ms: Milliseconds after which to try again.
    """

    code = "RESOURCE_EXHAUSTED"

    retry_ms = 500


class QueueFullError(BusyError):
    """The server's queue is full."""

    def __init__(self, tokens: int) -> None:
        super().__init__(
            f"the server's queue is full: {tokens} tokens of interactive calls wait already. "
            "Try again in a moment, or send many documents through StreamVectors"
        )


class JobWaitsError(BusyError):
    """There is no memory now for a document of a job, which stays at its last commit."""

    def __init__(self, document: str, number: int, tokens: int) -> None:
        super().__init__(
            f"the server has no memory now for document {document!r} (the job's "
            f"number {number}, {tokens} tokens): the job stands at its last commit. "
            "Try again when the server has less to do, or skip documents of so many "
            "tokens"
        )


class SumsLostError(PicklableError):
    """A device is lost, and with it what a job had summed there since its last commit."""

    code = "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__(
            "the server lost a device that had summed documents of the job: it stands at its last "
            "commit; send again what came after"
        )


class IdleError(PicklableError):
    """A call in which nothing happens; the client may open another."""

    code = "UNAVAILABLE"


class DrainingError(PicklableError):
    """The server is shutting down and accepts nothing new."""

    code = "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the server is shutting down; try again, it or another may be back soon")


class MeanNotFoundError(PicklableError):
    """There is no such corpus mean."""

    code = "NOT_FOUND"


class MeanMismatchError(PicklableError):
    """Means, or a mean and a model, do not match."""

    code = "FAILED_PRECONDITION"


class MeanCorruptError(PicklableError):
    """The file of a mean differs from the one stored."""

    code = "DATA_LOSS"


class JobMismatchError(PicklableError):
    """A job of this name has other settings, or is at a point where the caller cannot follow."""

    code = "FAILED_PRECONDITION"


class JobCorruptError(PicklableError):
    """A job's files on disk are damaged."""

    code = "DATA_LOSS"


class JobHeldError(PicklableError):
    """Another client holds the job."""

    code = "ABORTED"


class StorageError(PicklableError):
    """The data directory cannot be read or written."""

    code = "INTERNAL"


class StorageFullError(StorageError):
    """The disk is full, or the data directory is at its limit."""

    code = "RESOURCE_EXHAUSTED"


class VolumeAwayError(StorageError):
    """The shared volume cannot be read or written for now."""

    code = "UNAVAILABLE"
