"""What can go wrong, in the words of the part that notices it.

Nothing here knows gRPC: `status` maps these to status codes, `main` to exit codes.
"""

from typing import Any, Self


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class PicklableError(Exception):
    """An error that another process can raise again, as Modal does with those of its workers."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class, whose arguments are not the message.
        return self._again, (str(self), self.__dict__)

    @classmethod
    def _again(cls, message: str, attributes: dict[str, Any]) -> Self:
        error = cls.__new__(cls, message)
        error.__dict__.update(attributes)
        return error


class StartupError(PicklableError):
    """The server cannot start: a model, a port or an option is not usable."""


class UnauthenticatedError(PicklableError):
    """A caller has no token, or none that the server knows."""


class UnknownMethodError(PicklableError):
    """The server has no such method."""

    def __init__(self, method: str) -> None:
        super().__init__(f"this server has no method {method}")


class RequestError(PicklableError):
    """A request, or one document of it, asks for something that cannot be.

    Attributes:
        field: The request field at fault, as in the contract, for example `settings.mode`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class TextTooLargeError(RequestError):
    """A text has more bytes than the server takes."""


class MessageTooLargeError(RequestError):
    """A message has more parts than the server takes in one."""


class NotFiniteError(PicklableError):
    """A document's states are not finite: it has no vector.

    Attributes:
        layer: The first target layer whose state is not finite; None where every layer is finite
            and their mean is not.
    """

    def __init__(self, layer: int | None) -> None:
        where = "the mean over the target layers" if layer is None else f"layer {layer}"
        super().__init__(
            f"the residual stream after {where} is not finite for this document; "
            "a server with --dtype float32 or bfloat16 holds larger values than float16"
        )
        self.layer = layer


class DoesNotFitError(PicklableError):
    """There is no memory for a document, not even for it alone."""

    def __init__(self, tokens: int) -> None:
        super().__init__(
            f"there is no memory on the server for this document of {tokens} tokens; send less of "
            "it, or try again when the server has less to do"
        )


class EngineError(PicklableError):
    """The engine failed on a step."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the engine failed ({kind}); the server's log has the details")


class EngineLostError(PicklableError):
    """The engine hangs, or its device is lost: only another process can go on."""


class CutShortError(PicklableError):
    """The server ended before everything that it had taken was done."""


class LeftOutError(PicklableError):
    """A client could not send a document of a job.

    Attributes:
        reason: Why, as the name of a google.rpc code.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EncodingRangeError(PicklableError):
    """A vector has a number that the requested encoding cannot hold."""


class BusyError(PicklableError):
    """The server has as much to do as it takes.

    Attributes:
        retry_ms: Milliseconds after which it may have less.
    """

    retry_ms = 500


class QueueFullError(BusyError):
    """The server has as much waiting as it takes."""

    def __init__(self, tokens: int) -> None:
        super().__init__(
            f"the server's queue is full: {tokens} tokens of interactive calls wait already. "
            "Try again in a moment, or send many documents through StreamVectors"
        )


class JobWaitsError(BusyError):
    """There is no memory now for a document of a job, which stands at its last commit."""

    def __init__(self, document: str, number: int, tokens: int) -> None:
        super().__init__(
            f"there is no memory on the server now for document {document!r} (the job's number "
            f"{number}, {tokens} tokens): the job stands at its last commit. Try again when the "
            "server has less to do; where it never has the memory, set a smaller --document-tokens"
        )


class IdleError(PicklableError):
    """A call in which nothing happens; another one may go on."""


class DrainingError(PicklableError):
    """The server is shutting down and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; try again, it or another may be back soon")


class MeanNotFoundError(PicklableError):
    """There is no such corpus mean."""


class MeanMismatchError(PicklableError):
    """Means, or a mean and a model, that do not fit together."""


class MeanCorruptError(PicklableError):
    """The file of a mean is not what was stored."""


class JobMismatchError(PicklableError):
    """A job of this name has other settings, or is where the caller cannot follow."""


class JobCorruptError(PicklableError):
    """What a job left on the disk is damaged."""


class JobHeldError(PicklableError):
    """Another client holds the job."""


class StorageError(PicklableError):
    """The data directory cannot be read or written."""


class StorageFullError(StorageError):
    """The data directory has no room, or holds as much as it may."""


class VolumeAwayError(StorageError):
    """What machines share cannot be read or written for now."""
