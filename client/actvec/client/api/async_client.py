"""The client for programs with an event loop.

Longer than other modules because it is one class with a method for each verb of the product; half
of its lines document them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NoReturn, Self, Unpack

import numpy as np

from actvec.client.errors import ProtocolError
from actvec.client.messages import means as means_wire
from actvec.client.messages import vectors as wire
from actvec.client.messages.documents import encode_document
from actvec.client.messages.model import decode_info
from actvec.client.records.columns import by_name
from actvec.client.records.inputs import check_several
from actvec.client.records.means import CorpusMean, MeanFile
from actvec.client.records.model import ModelInfo
from actvec.client.records.settings import (
    MeanSettings,
    StateKeywords,
    VectorKeywords,
    VectorSettings,
)
from actvec.client.records.vectors import Document, Failure, Vector, VectorArray
from actvec.client.streams.in_flight import Documents
from actvec.client.streams.job_names import named_by_content
from actvec.client.streams.mean_stream import MeanStream, OnProgress
from actvec.client.streams.results import ResultStream
from actvec.client.streams.vector_stream import VectorStream
from actvec.client.transport.address import DEFAULT_TARGET, Waking
from actvec.client.transport.channel import TlsFiles
from actvec.client.transport.runtime import check_runtime
from actvec.client.transport.seconds import TimeLeft, checked_seconds
from actvec.client.workers.directory import Deployment
from actvec.client.workers.servers import Servers
from actvec.v1 import means_pb2, model_pb2


class AsyncClient:
    """Turns documents into activation vectors on an actvec server.

    It connects at its first call. It belongs to the event loop of that call and to its process:
    close it before you fork. Its methods may run concurrently.

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
        headers: Mapping[str, str] | None = None,
        tls: TlsFiles | None = None,
        timeout: float | None = 60.0,
        retry_for: float | None = 300.0,
        workers: int | None = None,
        waking: Waking | None = None,
    ) -> None:
        """Configure the client, without connecting.

        Args:
            target: The server: HOST:PORT, or https://HOST:PORT with TLS. For workers on Modal,
                modal://APP or modal://APP/ENVIRONMENT; or another deployment of workers.
            token: The server's token, if it requires one. Without TLS, the client sends it to this
                machine only.
            headers: Further metadata of each call, by name, for a proxy before the server. Like the
                token, it travels to another machine with TLS only.
            tls: Certificates for TLS, other than those of public authorities.
            timeout: Seconds that a method may take, over all its calls and their retries, once the
                server is awake; for the file of a mean, seconds between chunks. Streams have no
                such limit. None or infinity for no limit.
            retry_for: Seconds without progress after which a broken stream fails; 0 to fail at
                once, None or infinity to retry forever.
            workers: Number of workers of a deployment to use: `stream` spreads over all of them,
                and starts those that are missing. Default: the running ones, or one.
            waking: How long to wait for a sleeping server. Default: `Waking()`.

        Raises:
            InvalidTarget: `target` is not an address.
            InvalidArgument: an argument does not fit `target`: `tls` without https, `workers` for a
                single server, or a deployment without a token.
            InsecureToken: `token` or `headers` would travel to another machine without TLS.
            MissingExtra: `target` is on Modal, and modal is not installed.
            ValueError: a time is negative or NaN, or `timeout` is 0.
            TypeError: a time is not a number.
            FailedPrecondition: gRPC would hang here: this process was forked while a client was
                connected, or gevent or eventlet has replaced its threads.
        """
        check_runtime()
        self._timeout = checked_seconds("timeout", timeout)
        self._retry_for = checked_seconds("retry_for", retry_for, zero=True)
        self._servers = Servers(
            target,
            token=token,
            headers=headers,
            tls=tls or TlsFiles(),
            workers=workers,
            waking=waking or Waking(),
        )
        self._connection = self._servers.first
        self._info: ModelInfo | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel everything in flight and disconnect. Safe to call twice."""
        await self._servers.close()

    async def info(self, *, timeout: float | None = None) -> ModelInfo:  # noqa: ASYNC109 - a deadline that travels
        """Return what the server serves: model, layers, widths, limits, versions.

        Args:
            timeout: Seconds, instead of the client's; infinity for no limit.

        Raises:
            ServerUnavailable: no server answers.
            ActvecError: the server refused.
        """
        return await self._ask(self._time(timeout))

    async def extract(
        self,
        document: str | Document,
        settings: VectorSettings | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline that travels
        **keywords: Unpack[VectorKeywords],
    ) -> Vector:
        """Return the vector of one document.

        Examples:
            >>> vector = await client.extract("Some text.", mode="short")
            >>> vector = await client.extract(
            ...     Document("a", messages=[("user", "Hello!"), ("assistant", "Hello.")]),
            ...     layers=range(24), separate=True, pools=["span:response", "last"],
            ... )
            >>> vector.array.shape
            (24, 2, 512)

        Args:
            document: A text, or a `Document`: a text with an id, a chat, or token ids.
            settings: How to turn it into a vector. You may pass its attributes by name instead, for
                example `mode="long"`; see `VectorSettings`.
            timeout: Seconds, instead of the client's; infinity for no limit.
            **keywords: The attributes of `VectorSettings`, instead of `settings`.

        Raises:
            TypeError: `document` is neither a str nor a Document, or a keyword is unknown.
            ValueError: see `VectorSettings`.
            InvalidArgument: the document is blank, has too many tokens, or has a token that the
                model does not know; or the server does not offer what the settings ask for.
            ResourceExhausted: the document exceeds a limit in bytes, which the client checks before
                it sends, or the server's queue stayed full.
            NotFound: the corpus mean does not exist.
            ServerUnavailable: no server answers.
            ActvecError: the server refused for another reason.
        """
        settings = VectorSettings.of(settings, keywords)
        document = Document("", document) if isinstance(document, str) else document
        if not isinstance(document, Document):
            raise TypeError(f"a text is a str or a Document, not {type(document).__name__}")
        left = self._time(timeout)
        info = self._info or await self._ask(left)
        outgoing = encode_document(document, 0, info.limits)
        response = await self._connection.unary(
            lambda stub: stub.ExtractVector,
            wire.encode_request(outgoing, settings),
            left,
        )
        return wire.decode_vector(
            response.vector,
            wire.decode_stamp(response.stamp, settings, info),
            document_id=document.id,
            text_sha256=outgoing.text_sha256,
            columns=document.columns,
        )

    def stream(
        self,
        documents: Documents,
        settings: VectorSettings | None = None,
        *,
        window: int | None = None,
        ordered: bool = False,
        **keywords: Unpack[VectorKeywords],
    ) -> ResultStream:
        """Return the vectors of any number of documents, as they are ready, one result each.

        A document that has no vector gives a `Failure`, and the stream continues. If the connection
        breaks, the client connects again and resends every document without an answer.

        Examples:
            >>> async with client.stream(texts, mode="short") as results:
            ...     async for result in results:
            ...         print(result.id, result.array.shape)

        Args:
            documents: An iterable or async iterable of `Document`, str (its position becomes the
                id), `(id, text)` or dicts, such as rows of a data set, with `id`, one of `text`,
                `messages` and `token_ids`, and optional `spans` and `columns`. A `Failure`, which
                readers yield for what they cannot read, passes through. The client draws documents
                lazily, and from an iterable that is not async in another thread.
            settings: How to turn them into vectors. You may pass its attributes by name instead,
                for example `mode="long"`; see `VectorSettings`.
            window: Documents in flight at a time, which bounds memory. A document with more than
                16,384 characters, or a vector of more than 256 KiB, counts as several. Default:
                twice what the server holds per stream.
            ordered: Whether results come in the order of the documents.
            **keywords: The attributes of `VectorSettings`, instead of `settings`.

        Returns:
            An async iterator; leaving it early cancels everything in flight.

        Raises:
            ValueError: see `VectorSettings`; raised at once, the errors below `TypeError` when
                iterated.
            TypeError: `documents` is a single document or a data frame (raised at once), or yielded
                something else than a document.
            ServerUnavailable: no server answers, or none did for `retry_for` seconds.
            StampChanged: after a reconnection the server would compute other vectors.
            ActvecError: the server refused.
            Exception: whatever `documents` raised, after the results of the documents before it.
        """
        check_several(documents)
        settings = VectorSettings.of(settings, keywords)
        stream = VectorStream(settings, window, ordered=ordered, retry_for=self._retry_for)
        return ResultStream(
            self._connection,
            stream,
            lambda: stream.run(documents, self.info, self._servers.lanes),
        )

    async def vectors(
        self,
        documents: Documents,
        settings: VectorSettings | None = None,
        **keywords: Unpack[VectorKeywords],
    ) -> VectorArray:
        """Return the vectors of documents as one array in memory, in the order of the documents.

        Examples:
            >>> array, ids, failures = await client.vectors(texts, mode="short")
            >>> array.shape
            (1000, 1, 1, 512)

        Args:
            documents: As for `stream`.
            settings: How to turn them into vectors. You may pass its attributes by name instead,
                for example `mode="long"`; see `VectorSettings`.
            **keywords: The attributes of `VectorSettings`, instead of `settings`.

        Returns:
            `[N, L, K, D]` float32 for the N documents that have a vector, their ids, the failures
            of the others, and the columns of the N documents.

        Raises:
            ValueError: see `VectorSettings`.
            ActvecError: as for `stream`.
            Exception: whatever `documents` raised.
        """
        settings = VectorSettings.of(settings, keywords)
        vectors: list[Vector] = []
        failures: list[Failure] = []
        async with self.stream(documents, settings=settings, ordered=True) as results:
            async for result in results:
                if isinstance(result, Vector):
                    vectors.append(result)
                else:
                    failures.append(result)
        if vectors:
            array = np.stack([vector.array for vector in vectors])
        else:
            array = np.empty((0, *wire.shape_of(settings, await self.info())), np.float32)
        columns = by_name([vector.columns for vector in vectors])
        return VectorArray(array, [vector.id for vector in vectors], failures, columns)

    async def corpus_mean(
        self,
        documents: Documents,
        *,
        job: str | None = None,
        name: str | None = None,
        variance: bool = False,
        take_over: bool = False,
        on_progress: OnProgress | None = None,
        **keywords: Unpack[StateKeywords],
    ) -> CorpusMean:
        """Compute the mean of a corpus, and count each document exactly once, whatever breaks.

        The server keeps the sums under the job's name and makes them durable every few seconds. If
        the connection breaks, the client connects again. If your program dies, run it again: it
        draws the documents from the start, and the job continues after its last durable document.

        A mean of separate layers (`separate=True`) centers vectors of any of its layers.

        Examples:
            >>> mean = await client.corpus_mean(documents, name="wikitext", layers=[25, 26, 27])
            >>> vector = await client.extract("Some text.", mode="short", center=mean.id)

        Args:
            documents: As for `stream`; the same documents in the same order at every run of a job.
                `CorpusMean.skipped` counts those that the client cannot read or send, and those
                that the server cannot take.
            job: The job's name: letters, digits, `.`, `_` and `-`, at most 64. By default
                `corpus-` and a digest of the model, the settings and the documents, for which the
                client reads the documents once more, at first: the same call resumes its job, and
                returns a finished mean at once; after any change it is another job.
            name: The finished mean's name, in the same form; by default the job's. A name stands
                for the newest mean that has it.
            variance: Whether to keep second moments too, for standardizing.
            take_over: Whether to take the job from another client that has long been silent.
            on_progress: Called about every second, in the client's event loop.
            **keywords: The attributes of `StateSettings`: `layers`, `separate`, `hook`,
                `truncation` and so on. A document beyond the context is skipped and counted
                (truncation `error`), or cut to its `start` or its `end`.

        Raises:
            TypeError: `documents` is a single document or a data frame, or yielded something else
                than a document.
            ValueError: see `StateSettings`; or there is no `job`, and `documents` can be read only
                once, as a generator.
            InvalidArgument: a name is malformed, or the server does not offer what the settings ask
                for.
            ResourceExhausted: the sums of so many layers do not fit the server's memory.
            Aborted: another client holds this job.
            FailedPrecondition: the job started with another model or other settings, or every
                document was skipped.
            CorpusChanged: the job started with other documents.
            ServerUnavailable: no server answers, or none did for `retry_for` seconds.
            ActvecError: the server refused.
            Exception: whatever `documents` raised; the mean is not finished, and the job can
                resume.
        """
        check_several(documents)
        settings = MeanSettings(
            job=job or "",
            name=(job or "") if name is None else name,
            variance=variance,
            take_over=take_over,
            **keywords,
        )
        if job is None:
            info = await self.info()
            settings = await asyncio.to_thread(named_by_content, settings, documents, info)
        running = MeanStream(self._connection, settings, self._retry_for, on_progress)
        try:
            return await running.run(documents, self.info)
        except asyncio.CancelledError:
            self._connection.raise_if_closed()
            raise

    async def list_means(self, *, all_models: bool = False) -> list[CorpusMean]:
        """Return the records of the server's means, newest first.

        Args:
            all_models: Whether to include means of other models and layers than the server's.

        Raises:
            ActvecError: the server refused, or none answers.
        """
        means: list[CorpusMean] = []
        left = self._time()
        request = means_pb2.ListCorpusMeansRequest(all_models=all_models)
        while True:
            page = await self._connection.unary(lambda stub: stub.ListCorpusMeans, request, left)
            means += map(means_wire.decode_mean, page.corpus_means)
            if not page.next_page_token:
                return means
            if page.next_page_token == request.page_token:
                raise ProtocolError("the server repeats the same page of means")
            request.page_token = page.next_page_token

    async def get_mean(self, name: str) -> CorpusMean:
        """Return the record of a mean, by its id, its name or as `latest`.

        Raises:
            NotFound: there is no such mean.
            ActvecError: the server refused, or none answers.
        """
        answer = await self._connection.unary(
            lambda stub: stub.GetCorpusMean,
            means_pb2.GetCorpusMeanRequest(corpus_mean=name),
            self._time(),
        )
        return means_wire.decode_mean(answer.corpus_mean)

    async def delete_mean(self, name: str) -> CorpusMean:
        """Delete a mean, by its id or name, and return its last record.

        Raises:
            NotFound: there is no such mean.
            ActvecError: the server refused, or none answers.
        """
        answer = await self._connection.unary(
            lambda stub: stub.DeleteCorpusMean,
            means_pb2.DeleteCorpusMeanRequest(corpus_mean=name),
            self._time(),
            repeatable=False,
        )
        return means_wire.decode_mean(answer.corpus_mean)

    async def merge_means(self, means: Sequence[str], *, name: str) -> CorpusMean:
        """Merge means of disjoint documents, exactly, into a new one.

        Args:
            means: Ids or names, two or more, of the same model, layers and settings.
            name: The merged mean's name.

        Raises:
            NotFound: one of them does not exist.
            FailedPrecondition: they do not match.
            ActvecError: the server refused, or none answers.
        """
        answer = await self._connection.unary(
            lambda stub: stub.MergeCorpusMeans,
            means_pb2.MergeCorpusMeansRequest(corpus_means=means, name=name),
            self._time(),
        )
        return means_wire.decode_mean(answer.corpus_mean)

    async def download_mean(self, name: str) -> MeanFile:
        """Download the file of a mean, by its id, its name or as `latest`, and check its SHA-256.

        Examples:
            >>> file = await client.download_mean("my-corpus")
            >>> file.mean.shape
            (2048, 512)

        Raises:
            NotFound: there is no such mean.
            ProtocolError: the bytes do not match the record.
            DeadlineExceeded: no chunk came for the client's `timeout`, in seconds.
            ActvecError: the server refused, or none answers.
        """
        return means_wire.decode_file(await self._connection.download_mean(name, self._timeout))

    async def upload_mean(self, content: bytes, *, name: str) -> CorpusMean:
        """Store the file of a mean, downloaded or made elsewhere.

        Args:
            content: A safetensors file with a tensor `corpus_mean` `[D, max_tokens]` float32, or
                `[L, D, max_tokens]` for separate layers.
            name: The mean's name on this server.

        Raises:
            InvalidArgument: it is not such a file, or has another width than the server's model.
            ResourceExhausted: it exceeds the server's limit.
            DeadlineExceeded: the server took no chunk for the client's `timeout`, in seconds.
            ActvecError: the server refused, or none answers.
        """
        parts = means_wire.encode_file(content, name)
        answer = await self._connection.upload_mean(parts, self._timeout)
        return means_wire.decode_mean(answer.corpus_mean)

    async def _ask(self, left: TimeLeft) -> ModelInfo:
        answer = await self._connection.unary(
            lambda stub: stub.GetModelInfo, model_pb2.GetModelInfoRequest(), left
        )
        self._info = decode_info(answer)
        return self._info

    def _time(self, timeout: float | None = None) -> TimeLeft:
        seconds = self._timeout if timeout is None else checked_seconds("timeout", timeout)
        return TimeLeft(seconds)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client cannot be copied or sent to another process; send its address, and make a"
            " client there"
        )
