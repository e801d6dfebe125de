"""The client for programs without an event loop, and for notebooks."""

import weakref
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import NoReturn, Self, Unpack

from actvec.client.api.async_client import AsyncClient
from actvec.client.api.loop_thread import LoopThread
from actvec.client.records.inputs import Streamable
from actvec.client.records.means import CorpusMean, MeanFile
from actvec.client.records.model import ModelInfo
from actvec.client.records.settings import StateKeywords, VectorKeywords, VectorSettings
from actvec.client.records.vectors import Document, Result, Vector, VectorArray
from actvec.client.streams.mean_stream import OnProgress
from actvec.client.streams.results import ResultStream
from actvec.client.transport.address import DEFAULT_TARGET, Waking
from actvec.client.transport.channel import TlsFiles
from actvec.client.workers.directory import Deployment


class Client:
    """Turns documents into activation vectors on an actvec server.

    It runs an `AsyncClient` in its own thread, so it works inside a running event loop, as in a
    notebook. You may call its methods from several threads, but not in a forked process: start
    processes by the method "spawn", or close the client before the fork.

        with Client("127.0.0.1:50051") as client:
            vector = client.extract("Some text.", mode="short")
            for result in client.stream(documents, mode="long"):
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

        Arguments and errors are those of `AsyncClient`.
        """
        self._client = AsyncClient(
            target,
            token=token,
            headers=headers,
            tls=tls,
            timeout=timeout,
            retry_for=retry_for,
            workers=workers,
            waking=waking,
        )
        self._loop = LoopThread()
        # If nobody closes the client, close it in good order when the program ends.
        self._finalizer = weakref.finalize(self, _shut_down, self._client, self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel everything in flight and disconnect. Safe to call twice."""
        self._finalizer()

    def info(self, *, timeout: float | None = None) -> ModelInfo:
        """Return what the server serves: model, layers, widths, limits, versions.

        Args:
            timeout: Seconds, instead of the client's; infinity for no limit.

        Raises:
            ServerUnavailable: no server answers.
            ActvecError: the server refused.
        """
        return self._loop.run(self._client.info(timeout=timeout))

    def extract(
        self,
        document: str | Document,
        settings: VectorSettings | None = None,
        *,
        timeout: float | None = None,
        **keywords: Unpack[VectorKeywords],
    ) -> Vector:
        """Return the vector of one document.

        Examples:
            >>> vector = client.extract("Some text.", mode="short")

        Arguments and errors are those of `AsyncClient.extract`.
        """
        return self._loop.run(
            self._client.extract(document, settings=settings, timeout=timeout, **keywords)
        )

    def stream(
        self,
        documents: Iterable[Streamable],
        settings: VectorSettings | None = None,
        *,
        window: int | None = None,
        ordered: bool = False,
        **keywords: Unpack[VectorKeywords],
    ) -> Generator[Result, None, None]:
        """Return the vectors of any number of documents, as they are ready, one result each.

        The client draws `documents` lazily, in another thread. To leave the loop early, or to close
        the generator, cancels everything in flight.

        Examples:
            >>> for result in client.stream(texts, mode="short"):
            ...     print(result.id, result.array.shape)

        Arguments and errors are those of `AsyncClient.stream`.
        """
        # Checks the arguments now, not when the generator first runs.
        results = self._client.stream(
            documents, settings=settings, window=window, ordered=ordered, **keywords
        )
        return self._iterate(results)

    def vectors(
        self,
        documents: Iterable[Streamable],
        settings: VectorSettings | None = None,
        **keywords: Unpack[VectorKeywords],
    ) -> VectorArray:
        """Return the vectors of documents as one array in memory; see `AsyncClient.vectors`.

        Examples:
            >>> array, ids, failures = client.vectors(texts, mode="short")
        """
        return self._loop.run(self._client.vectors(documents, settings=settings, **keywords))

    def corpus_mean(
        self,
        documents: Iterable[Streamable],
        *,
        job: str | None = None,
        name: str | None = None,
        variance: bool = False,
        take_over: bool = False,
        on_progress: OnProgress | None = None,
        **keywords: Unpack[StateKeywords],
    ) -> CorpusMean:
        """Compute the mean of a corpus, and count each document exactly once, whatever breaks.

        The client draws `documents` lazily and calls `on_progress`, both in other threads.

        Examples:
            >>> mean = client.corpus_mean(documents, name="wikitext", layers=[25, 26, 27])
            >>> vector = client.extract("Some text.", mode="short", center=mean.id)

        Arguments and errors are those of `AsyncClient.corpus_mean`.
        """
        return self._loop.run(
            self._client.corpus_mean(
                documents,
                job=job,
                name=name,
                variance=variance,
                take_over=take_over,
                on_progress=on_progress,
                **keywords,
            )
        )

    def list_means(self, *, all_models: bool = False) -> list[CorpusMean]:
        """List the server's means, newest first; see `AsyncClient.list_means`."""
        return self._loop.run(self._client.list_means(all_models=all_models))

    def get_mean(self, name: str) -> CorpusMean:
        """Return the record of a mean; see `AsyncClient.get_mean`."""
        return self._loop.run(self._client.get_mean(name))

    def delete_mean(self, name: str) -> CorpusMean:
        """Delete a mean; see `AsyncClient.delete_mean`."""
        return self._loop.run(self._client.delete_mean(name))

    def merge_means(self, means: Sequence[str], *, name: str) -> CorpusMean:
        """Merge means into a new one; see `AsyncClient.merge_means`."""
        return self._loop.run(self._client.merge_means(means, name=name))

    def download_mean(self, name: str) -> MeanFile:
        """Download the file of a mean; see `AsyncClient.download_mean`."""
        return self._loop.run(self._client.download_mean(name))

    def upload_mean(self, content: bytes, *, name: str) -> CorpusMean:
        """Store the file of a mean; see `AsyncClient.upload_mean`."""
        return self._loop.run(self._client.upload_mean(content, name=name))

    def __reduce__(self) -> NoReturn:
        self._client.__reduce__()

    def _iterate(self, results: ResultStream) -> Generator[Result, None, None]:
        try:
            while batch := self._loop.run(results.next_batch()):
                yield from batch
        finally:
            self._loop.finish(results.aclose())


def _shut_down(client: AsyncClient, loop: LoopThread) -> None:
    loop.finish(client.close())
    loop.stop()
