"""The client, for programs without an event loop and for notebooks."""

import weakref
from collections.abc import Generator, Iterable, Sequence
from types import TracebackType
from typing import NoReturn, Self

from actvec.client.aio import AsyncClient
from actvec.client.channel import DEFAULT_TARGET, TlsFiles
from actvec.client.deployment import Deployment
from actvec.client.loop import LoopThread
from actvec.client.mean_job import OnProgress
from actvec.client.means import CorpusMean, MeanFile
from actvec.client.model import ModelInfo
from actvec.client.place import Waking
from actvec.client.results import ResultStream
from actvec.client.vectors import (
    Document,
    Encoding,
    Mode,
    Result,
    Truncation,
    Vector,
)
from actvec.client.work import Streamable


class Client:
    """Turns documents into activation vectors on an actvec server.

    An `AsyncClient` in a thread of its own, so it works where an event loop already runs, as in a
    notebook. Its methods may be called from several threads, but not in a process that was forked
    from its own: start processes by the method "spawn", or close it before the fork.

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
        tls: TlsFiles | None = None,
        timeout: float | None = 60.0,
        retry_for: float | None = 300.0,
        workers: int | None = None,
        waking: Waking | None = None,
    ) -> None:
        """Nothing is sent yet; arguments and errors are those of `AsyncClient`."""
        self._client = AsyncClient(
            target,
            token=token,
            tls=tls,
            timeout=timeout,
            retry_for=retry_for,
            workers=workers,
            waking=waking,
        )
        self._loop = LoopThread()
        # A client that nobody closed is closed with the program, in good order.
        self._finalizer = weakref.finalize(self, _shut_down, self._client, self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is in flight and disconnect. May be called twice."""
        self._finalizer()

    def info(self, *, timeout: float | None = None) -> ModelInfo:
        """What the server serves: model, layers, widths, limits, versions.

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
        *,
        mode: Mode,
        center: str | None = None,
        truncation: Truncation = "error",
        prepend_bos: bool | None = None,
        encoding: Encoding = "float32",
        timeout: float | None = None,
    ) -> Vector:
        """The vector of one document; arguments and errors are those of `AsyncClient.extract`."""
        return self._loop.run(
            self._client.extract(
                document,
                mode=mode,
                center=center,
                truncation=truncation,
                prepend_bos=prepend_bos,
                encoding=encoding,
                timeout=timeout,
            )
        )

    def stream(
        self,
        documents: Iterable[Streamable],
        *,
        mode: Mode,
        center: str | None = None,
        truncation: Truncation = "error",
        prepend_bos: bool | None = None,
        encoding: Encoding = "float32",
        window: int | None = None,
        ordered: bool = False,
    ) -> Generator[Result, None, None]:
        """The vectors of any number of documents, as they are ready, each document once.

        `documents` is drawn lazily, in another thread. Arguments and errors are those of
        `AsyncClient.stream`. Leaving the loop early, or closing the generator, cancels what is in
        flight.
        """
        # What is wrong with the arguments is said here, not when the generator is first asked.
        results = self._client.stream(
            documents,
            mode=mode,
            center=center,
            truncation=truncation,
            prepend_bos=prepend_bos,
            encoding=encoding,
            window=window,
            ordered=ordered,
        )
        return self._iterate(results)

    def corpus_mean(
        self,
        documents: Iterable[Streamable],
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

        `documents` is drawn lazily and `on_progress` called, both in other threads. Arguments and
        errors are those of `AsyncClient.corpus_mean`.
        """
        return self._loop.run(
            self._client.corpus_mean(
                documents,
                job=job,
                name=name,
                truncation=truncation,
                prepend_bos=prepend_bos,
                variance=variance,
                take_over=take_over,
                on_progress=on_progress,
            )
        )

    def list_means(self, *, all_models: bool = False) -> list[CorpusMean]:
        """The server's means, newest first; see `AsyncClient.list_means`."""
        return self._loop.run(self._client.list_means(all_models=all_models))

    def get_mean(self, name: str) -> CorpusMean:
        """The record of a mean; see `AsyncClient.get_mean`."""
        return self._loop.run(self._client.get_mean(name))

    def delete_mean(self, name: str) -> CorpusMean:
        """Remove a mean; see `AsyncClient.delete_mean`."""
        return self._loop.run(self._client.delete_mean(name))

    def merge_means(self, means: Sequence[str], *, name: str) -> CorpusMean:
        """Merge means into a new one; see `AsyncClient.merge_means`."""
        return self._loop.run(self._client.merge_means(means, name=name))

    def download_mean(self, name: str) -> MeanFile:
        """The file of a mean; see `AsyncClient.download_mean`."""
        return self._loop.run(self._client.download_mean(name))

    def upload_mean(self, content: bytes, *, name: str) -> CorpusMean:
        """Store a mean's file; see `AsyncClient.upload_mean`."""
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
