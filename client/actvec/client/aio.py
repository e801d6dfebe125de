"""The client, for programs that run an event loop."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn, Self

from actvec.client import means_wire, wire
from actvec.client.channel import DEFAULT_TARGET, TlsFiles
from actvec.client.deployment import Deployment
from actvec.client.errors import ProtocolError
from actvec.client.mean_job import MeanJob, OnProgress
from actvec.client.means import CorpusMean, MeanFile, MeanSettings
from actvec.client.model import Limits, ModelInfo
from actvec.client.place import Waking
from actvec.client.results import ResultStream
from actvec.client.runtime import check_runtime
from actvec.client.seconds import checked_seconds
from actvec.client.servers import Servers
from actvec.client.streaming import StreamOptions, VectorStream
from actvec.client.vectors import Document, Encoding, Mode, Settings, Truncation, Vector
from actvec.client.work import Documents
from actvec.v1 import means_pb2, model_pb2, vectors_pb2


class AsyncClient:
    """Turns documents into activation vectors on an actvec server.

    It connects at the first call, in the event loop of that call, and belongs to that loop and to
    that process: close it before the process is forked. Its methods may run concurrently.

        async with AsyncClient("127.0.0.1:50051") as client:
            vector = await client.extract("Some text.", mode="short")
            async for result in client.stream(documents, mode="long"):
                ...
    """

    def __init__(
        self,
        target: str | Deployment = DEFAULT_TARGET,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        timeout: float | None = 60.0,
        retry_for: float | None = 300.0,
        workers: int | None = None,
        waking: Waking | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            target: The server's HOST:PORT, or https://HOST:PORT for one with TLS; modal://APP or
                modal://APP/ENVIRONMENT for workers on Modal, or another deployment of workers.
            token: The server's token, where it wants one. Without TLS it is sent to this machine
                only.
            tls: Certificates other than the public authorities', for TLS.
            timeout: Seconds that a call may take, retries included, once the server is awake, and
                that the file of a mean may be without a chunk; streams have no such limit. None
                or infinity for no limit.
            retry_for: Seconds without progress after which a broken stream is given up; 0 to give
                up at once, None or infinity never to.
            workers: How many workers of a deployment are to be there: `stream` is spread over all,
                and those that are missing are started. Default: those that are, or one.
            waking: How long a server that is asleep is waited for. Default: `Waking()`.

        Raises:
            InvalidTarget: `target` is no address.
            InvalidArgument: an argument that does not go with `target`: `tls` without https,
                `workers` of a single server, a deployment without a token.
            InsecureToken: a token for a server on another machine, without TLS.
            MissingExtra: `target` is on Modal, and modal is not installed.
            ValueError: a time is negative or NaN, or `timeout` is 0.
            TypeError: a time is no number.
            FailedPrecondition: gRPC would hang here: this process was forked while a client was
                connected, or gevent or eventlet has replaced its threads.
        """
        check_runtime()
        self._timeout = checked_seconds("timeout", timeout)
        self._retry_for = checked_seconds("retry_for", retry_for, zero=True)
        self._servers = Servers(target, token, tls or TlsFiles(), workers, waking or Waking())
        self._connection = self._servers.first
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
        await self._servers.close()

    async def info(self, *, timeout: float | None = None) -> ModelInfo:  # noqa: ASYNC109 - a deadline that travels
        """What the server serves: model, layers, widths, limits, versions.

        Args:
            timeout: Seconds, instead of the client's; infinity for no limit.

        Raises:
            ServerUnavailable: no server answers.
            ActvecError: the server refused.
        """
        self._info = wire.decode_info(
            await self._connection.unary(
                lambda stub: stub.GetModelInfo,
                model_pb2.GetModelInfoRequest(),
                self._seconds(timeout),
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
        prepend_bos: bool | None = None,
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
            prepend_bos: Whether the tokenizer's BOS token comes first; by default if it has one, as
                the stamp says.
            encoding: How the numbers travel; they arrive as float32 in any case.
            timeout: Seconds, instead of the client's; infinity for no limit.

        Raises:
            TypeError: `document` is neither a str nor a Document.
            InvalidArgument: the text is blank, has too many tokens or one that the model does not
                know, or BOS is asked for and the tokenizer has none.
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
            self._seconds(timeout),
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
        prepend_bos: bool | None = None,
        encoding: Encoding = "float32",
        window: int | None = None,
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
            prepend_bos: Whether the tokenizer's BOS token comes first; by default if it has one, as
                the stamp says.
            encoding: How the numbers travel; they arrive as float32 in any case.
            window: Documents in flight at a time, which bounds memory; one of more than 16,384
                characters counts as several. Default: twice what the server has inside.
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
            Settings(mode, center, truncation, prepend_bos, encoding),
            StreamOptions(window, ordered, self._retry_for),
        )
        return ResultStream(
            self._connection,
            stream,
            lambda: stream.run(documents, self._ask_limits, self._servers.lanes),
        )

    async def corpus_mean(
        self,
        documents: Documents,
        *,
        job: str,
        name: str | None = None,
        truncation: Truncation = "error",
        prepend_bos: bool | None = None,
        variance: bool = False,
        take_over: bool = False,
        on_progress: OnProgress | None = None,
    ) -> CorpusMean:
        """The mean of a corpus, each document counted exactly once, whatever breaks.

        The sums are kept by the server, durable every few seconds under the job's name. A
        connection that breaks is opened again. A program that was killed is run again: it draws
        the documents from the start, and the job goes on after the last that was durable.

        Args:
            documents: As for `stream`, the same in the same order at every run of a job. What
                cannot be read or sent is counted in `CorpusMean.skipped`, as is what the server
                cannot take.
            job: Names the job: letters, digits, `.`, `_` and `-`, at most 64.
            name: Names the finished mean, in the same form; by default the job's name.
            truncation: What happens to a text over the model's context: it is left out (`error`),
                or its `start` or its `end` is kept.
            prepend_bos: Whether the tokenizer's BOS token comes first; by default if it has one, as
                the mean's record says.
            variance: Whether second moments are kept too, to standardise by.
            take_over: Whether to take the job from another client that has been silent for long.
            on_progress: Called every second or so, in the client's event loop.

        Raises:
            InvalidArgument: a name is not of that form, or BOS is asked for and the tokenizer has
                none.
            Aborted: another client is at this job.
            FailedPrecondition: the job was begun with another model or other settings, or every
                document was left out.
            CorpusChanged: the job was begun with other documents.
            ServerUnavailable: no server answers, or none did for `retry_for` seconds.
            ActvecError: the server refused.
            Exception: whatever `documents` raised; the mean is not finished, the job can go on.
        """
        settings = MeanSettings(
            job, job if name is None else name, truncation, prepend_bos, variance, take_over
        )
        running = MeanJob(self._connection, settings, self._retry_for, on_progress)
        try:
            return await running.run(documents, self._ask_limits)
        except asyncio.CancelledError:
            self._connection.raise_if_closed()
            raise

    async def list_means(self, *, all_models: bool = False) -> list[CorpusMean]:
        """The records of the server's means, newest first; or of `all_models` and layers.

        Raises:
            ActvecError: the server refused, or none answers.
        """
        means: list[CorpusMean] = []
        request = means_pb2.ListCorpusMeansRequest(all_models=all_models)
        while True:
            page = await self._connection.unary(
                lambda stub: stub.ListCorpusMeans, request, self._timeout
            )
            means += map(means_wire.decode_mean, page.corpus_means)
            if not page.next_page_token:
                return means
            if page.next_page_token == request.page_token:
                raise ProtocolError("the server gives the same page of means again and again")
            request.page_token = page.next_page_token

    async def get_mean(self, name: str) -> CorpusMean:
        """The record of a mean, by its id, its name or as `latest`.

        Raises:
            NotFound: there is none.
            ActvecError: the server refused, or none answers.
        """
        answer = await self._connection.unary(
            lambda stub: stub.GetCorpusMean,
            means_pb2.GetCorpusMeanRequest(corpus_mean=name),
            self._timeout,
        )
        return means_wire.decode_mean(answer.corpus_mean)

    async def delete_mean(self, name: str) -> CorpusMean:
        """Remove a mean, by its id or name; returns what its record was.

        Raises:
            NotFound: there is none.
            ActvecError: the server refused, or none answers.
        """
        answer = await self._connection.unary(
            lambda stub: stub.DeleteCorpusMean,
            means_pb2.DeleteCorpusMeanRequest(corpus_mean=name),
            self._timeout,
            repeatable=False,
        )
        return means_wire.decode_mean(answer.corpus_mean)

    async def merge_means(self, means: Sequence[str], *, name: str) -> CorpusMean:
        """Merge means of documents that do not overlap, exactly, into a new one.

        Args:
            means: Ids or names, two or more, of the same model, layers and settings.
            name: Names the merged mean.

        Raises:
            NotFound: one of them is not there.
            FailedPrecondition: they do not fit together.
            ActvecError: the server refused, or none answers.
        """
        answer = await self._connection.unary(
            lambda stub: stub.MergeCorpusMeans,
            means_pb2.MergeCorpusMeansRequest(corpus_means=means, name=name),
            self._timeout,
        )
        return means_wire.decode_mean(answer.corpus_mean)

    async def download_mean(self, name: str) -> MeanFile:
        """The file of a mean, by its id, its name or as `latest`, checked against its SHA-256.

        Raises:
            NotFound: there is none.
            ProtocolError: the bytes are not those of the record.
            DeadlineExceeded: no chunk came for the client's `timeout`, in seconds.
            ActvecError: the server refused, or none answers.
        """
        return means_wire.decode_file(await self._connection.download_mean(name, self._timeout))

    async def upload_mean(self, content: bytes, *, name: str) -> CorpusMean:
        """Store a mean's file: one that was downloaded, or was made elsewhere.

        Args:
            content: A safetensors file with a tensor `corpus_mean` `[D, max_tokens]` float32.
            name: Names it on this server.

        Raises:
            InvalidArgument: it is no such file, or of another width than the server's model.
            ResourceExhausted: it is larger than the server takes.
            DeadlineExceeded: no chunk went for the client's `timeout`, in seconds.
            ActvecError: the server refused, or none answers.
        """
        parts = means_wire.encode_file(content, name)
        answer = await self._connection.upload_mean(parts, self._timeout)
        return means_wire.decode_mean(answer.corpus_mean)

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else checked_seconds("timeout", timeout)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client cannot be copied or sent to another process; send its address, and make a"
            " client there"
        )

    async def _ask_limits(self) -> Limits:
        return (await self.info()).limits
