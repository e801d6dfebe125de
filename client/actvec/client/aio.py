"""The client, for programs that run an event loop."""

from types import TracebackType
from typing import Self

from actvec.client import wire
from actvec.client.channel import DEFAULT_TARGET
from actvec.client.connection import Connection
from actvec.client.model import Limits, ModelInfo
from actvec.client.results import ResultStream
from actvec.client.streaming import Documents, StreamOptions, VectorStream
from actvec.client.vectors import (
    Document,
    Encoding,
    Mode,
    Settings,
    Truncation,
    Vector,
)
from actvec.v1 import model_pb2, vectors_pb2


class AsyncClient:
    """Turns documents into activation vectors on an actvec server.

    It connects at the first call, in the event loop of that call, and belongs to that loop. Its
    methods may run concurrently.

        async with AsyncClient("127.0.0.1:50051") as client:
            vector = await client.extract("Some text.", mode="short")
            async for result in client.stream(documents, mode="long"):
                ...
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        retry_for: float = 300.0,
    ) -> None:
        """Nothing is sent yet.

        Args:
            target: The server's HOST:PORT.
            token: The server's token, where it wants one. It is sent to this machine only, since
                the connection is not encrypted.
            timeout: Seconds that a call may take, retries included; streams have no such limit.
            retry_for: Seconds without progress after which a broken stream is given up.

        Raises:
            InvalidTarget: `target` is not HOST:PORT.
            InsecureToken: a token for a server on another machine.
        """
        self._connection = Connection(target, token)
        self._timeout = timeout
        self._retry_for = retry_for
        self._info: ModelInfo | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is in flight and disconnect. May be called twice."""
        await self._connection.close()

    async def info(self, *, timeout: float | None = None) -> ModelInfo:  # noqa: ASYNC109 - a deadline that travels
        """What the server serves: model, layers, widths, limits, versions.

        Args:
            timeout: Seconds, instead of the client's.

        Raises:
            ServerUnavailable: no server answers.
            ActvecError: the server refused.
        """
        self._info = wire.decode_info(
            await self._connection.unary(
                lambda stub: stub.GetModelInfo,
                model_pb2.GetModelInfoRequest(),
                self._timeout if timeout is None else timeout,
            )
        )
        return self._info

    async def extract(
        self,
        document: str | Document,
        *,
        mode: Mode,
        center: str | None = None,
        truncation: Truncation = "error",
        prepend_bos: bool = True,
        encoding: Encoding = "float32",
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline that travels
    ) -> Vector:
        """The vector of one document.

        Args:
            document: The text, with or without an id.
            mode: `short` (`[D]` numbers) or `long` (`[4 * D]`).
            center: The corpus mean to subtract: an id, a name or `latest`; None for a raw vector.
            truncation: What happens to a text over the model's context: it is an `error`, or its
                `start` or its `end` is kept and the vector says `truncated`.
            prepend_bos: Whether the tokenizer's BOS token comes first.
            encoding: How the numbers travel; they arrive as float32 in any case.
            timeout: Seconds, instead of the client's.

        Raises:
            TypeError: `document` is neither a str nor a Document.
            InvalidArgument: the text is blank, or has too many tokens.
            ResourceExhausted: the text is over a limit in bytes, which is noticed before it is
                sent, or the server's queue stayed full.
            NotFound: there is no such corpus mean.
            ServerUnavailable: no server answers.
            ActvecError: the server refused for another reason.
        """
        settings = Settings(mode, center, truncation, prepend_bos, encoding)
        document = Document("", document) if isinstance(document, str) else document
        if not isinstance(document, Document):
            raise TypeError(f"a text is a str or a Document, not {type(document).__name__}")
        limits = (self._info or await self.info(timeout=timeout)).limits
        outgoing = wire.encode_document(document, 0, limits)
        response = await self._connection.unary(
            lambda stub: stub.ExtractVector,
            vectors_pb2.ExtractVectorRequest(
                text=document.text, settings=wire.encode_settings(settings)
            ),
            self._timeout if timeout is None else timeout,
        )
        return wire.decode_vector(
            response.vector,
            wire.decode_stamp(response.stamp, settings),
            document_id=document.id,
            text_sha256=outgoing.text_sha256,
        )

    def stream(
        self,
        documents: Documents,
        *,
        mode: Mode,
        center: str | None = None,
        truncation: Truncation = "error",
        prepend_bos: bool = True,
        encoding: Encoding = "float32",
        window: int = 256,
        ordered: bool = False,
    ) -> ResultStream:
        """The vectors of any number of documents, as they are ready, each document once.

        A document that has no vector is a `Failure` and the stream goes on. A connection that
        breaks is opened again and what was not answered is sent again.

        Args:
            documents: An iterable or async iterable of `Document` or str (whose id is their
                position); a `Failure`, as readers yield for what they cannot read, is passed on.
                It is drawn lazily; an iterable that is not async is drawn in another thread.
            mode: `short` (`[D]` numbers) or `long` (`[4 * D]`).
            center: The corpus mean to subtract: an id, a name or `latest`; None for raw vectors.
            truncation: What happens to a text over the model's context: it is an `error`, or its
                `start` or its `end` is kept and the vector says `truncated`.
            prepend_bos: Whether the tokenizer's BOS token comes first.
            encoding: How the numbers travel; they arrive as float32 in any case.
            window: Documents in flight at a time, which bounds memory on both sides.
            ordered: Whether results come in the order of the documents.

        Returns:
            An async iterator; leaving it early cancels what is in flight.

        Raises:
            ValueError: an argument that does not exist; at once, as the next, the others when
                iterated.
            TypeError: `documents` is a single text, or gave something that is no document.
            ServerUnavailable: no server answers, or none did for `retry_for` seconds.
            StampChanged: after a reconnection the server makes other vectors.
            ActvecError: the server refused.
            Exception: whatever `documents` raised, after the results of what it gave.
        """
        if isinstance(documents, str | bytes | Document):
            raise TypeError("a stream takes an iterable of documents; extract takes a single one")
        stream = VectorStream(
            self._connection,
            Settings(mode, center, truncation, prepend_bos, encoding),
            StreamOptions(window, ordered, self._retry_for),
        )
        return ResultStream(
            self._connection, stream, lambda: stream.run(documents, self._ask_limits)
        )

    async def _ask_limits(self) -> Limits:
        return (await self.info()).limits
