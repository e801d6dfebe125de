"""One `StreamCorpusMean` call: documents in, progress and commits out, the mean last."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

import grpc

from actvec.server.errors import DrainingError, JobMismatchError, LeftOutError, RequestError
from actvec.server.extraction.extractor import Extractor
from actvec.server.extraction.settings import Settings
from actvec.server.jobs.checkpoint import FinishedJob
from actvec.server.jobs.mean_job import JobDocument, MeanJob
from actvec.server.jobs.registry import Jobs, Lease
from actvec.server.jobs.settings import JobSettings
from actvec.server.means.naming import checked_name
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.server.model.card import ModelCard
from actvec.server.service.mean_messages import commit_message, last_commit_message, mean_message
from actvec.server.service.requests import (
    SentDocument,
    naming,
    parse_bos,
    parse_chat,
    parse_target,
    parse_truncation,
)
from actvec.v1.means_pb2 import (
    CorpusMeanJob,
    CorpusMeanProgress,
    CorpusMeanSkip,
    StreamCorpusMeanRequest,
    StreamCorpusMeanResponse,
)

_PROGRESS_SECONDS = 1.0
_TEXT_BYTES = 1024
_UNCOMMITTED_DOCUMENTS = 10_000


class MeanCall:
    """Holds a job for one client: reads documents, commits now and then, finishes the mean."""

    def __init__(self, extractor: Extractor, jobs: Jobs, store: MeanStore, version: str) -> None:
        self._extractor = extractor
        self._jobs = jobs
        self._store = store
        self._version = version
        self._job: MeanJob | None = None
        self._reader: asyncio.Task[bool] | None = None
        self._stopped: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether documents are taken and not durable yet: their client may wait for that."""
        return self._job is not None and self._job.busy

    async def run(
        self, requests: AsyncIterator[StreamCorpusMeanRequest]
    ) -> AsyncGenerator[StreamCorpusMeanResponse, None]:
        """Yield the job's state, its progress, and the mean.

        Raises:
            RequestError: a message broke the contract.
            JobHeldError: another client holds the job, or has taken it.
            JobMismatchError: the job has other settings, or the documents do not continue it.
            DrainingError: the server is shutting down; the documents it took are committed.
            JobWaitsError: there was no memory for a document; the job stays at its last commit.
            StorageError: the disk is full or cannot be written.
        """
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "open":
            raise RequestError("open", "the first message of a stream must open the job")
        settings, tokenizing = parse_job(
            first.open,
            self._extractor.card,
            has_bos=self._extractor.has_bos,
            version=self._version,
        )
        holding = Lease(first.open.holder, self.stop)
        take_over, explicit = first.open.take_over, first.open.explicit_finish
        del first
        job = await self._jobs.open(settings, holding, self._store, take_over=take_over)
        if isinstance(job, FinishedJob):
            async for response in self._already_finished(requests, settings, job):
                yield response
            return
        self._job = job
        try:
            yield StreamCorpusMeanResponse(opened=commit_message(job.committed))
            reading = self._read(requests, job, tokenizing, explicit=explicit)
            self._reader = reader = asyncio.create_task(reading)
            if self._stopped is not None:
                reader.cancel()
            async for response in self._events(job, reader):
                yield response
            if self._stopped is not None:
                yield StreamCorpusMeanResponse(commit=commit_message(await job.commit()))
                raise self._stopped
            if await reader:
                mean = await job.finish(self._store)
                yield StreamCorpusMeanResponse(commit=commit_message(job.committed))
                yield StreamCorpusMeanResponse(finished=mean_message(mean))
        finally:
            if self._reader is not None:
                self._reader.cancel()
            self._jobs.end(settings.job, holding)

    def stop(self, reason: Exception | None = None) -> None:
        """Stop reading; the stream ends once everything read is durable."""
        self._stopped = reason or DrainingError()
        if self._reader is not None:
            self._reader.cancel()

    async def _events(
        self, job: MeanJob, reader: "asyncio.Task[bool]"
    ) -> AsyncGenerator[StreamCorpusMeanResponse, None]:
        """Yield progress every second and a commit every few, until the reader ends."""
        began, tokens = time.monotonic(), job.tokens
        last_commit = began
        while not reader.done():
            await asyncio.wait([reader], timeout=_PROGRESS_SECONDS)
            now = time.monotonic()
            due = now - last_commit >= job.commit_seconds
            if job.uncommitted and (due or job.uncommitted >= _UNCOMMITTED_DOCUMENTS):
                yield StreamCorpusMeanResponse(commit=commit_message(await job.commit()))
                last_commit = time.monotonic()
            yield StreamCorpusMeanResponse(
                progress=CorpusMeanProgress(
                    documents=job.added,
                    tokens=job.tokens,
                    skipped=job.skipped,
                    tokens_per_second=(job.tokens - tokens) / (now - began),
                )
            )

    async def _read(
        self,
        requests: AsyncIterator[StreamCorpusMeanRequest],
        job: MeanJob,
        settings: Settings,
        *,
        explicit: bool,
    ) -> bool:
        """Take documents until the client half-closes; return whether the mean is finished."""
        async for request in requests:
            job.last_message = time.monotonic()
            if await self._take(request, job, settings):
                return True
            # Not kept alive while waiting for the next one.
            del request
        return not explicit

    async def _take(
        self, request: StreamCorpusMeanRequest, job: MeanJob, settings: Settings
    ) -> bool:
        """Handle one message; return whether it is the last."""
        kind = request.WhichOneof("message")
        if kind == "finish":
            if request.finish.documents != job.next_sequence:
                raise RequestError(
                    "finish.documents",
                    (f"is {request.finish.documents}; the job has {job.next_sequence} documents"),
                )
            return True
        if kind == "skip":
            with naming("skip.sequence"):
                await job.add(_left_out(request.skip))
        elif kind == "documents":
            documents = [SentDocument(document) for document in request.documents.documents]
            async for document, content, digest in self._extractor.digested(documents, settings):
                with naming("documents.sequence"):
                    await job.add(JobDocument(document.sequence, document.id, digest, content))
        else:
            raise RequestError(kind or "message", "belongs in the first message only")
        return False

    async def _already_finished(
        self,
        requests: AsyncIterator[StreamCorpusMeanRequest],
        settings: JobSettings,
        job: FinishedJob,
    ) -> AsyncGenerator[StreamCorpusMeanResponse, None]:
        """Answer for a job that finished before, perhaps unknown to the client."""
        record = await asyncio.to_thread(self._store.find, job.mean, self._extractor.card.stamp)
        yield StreamCorpusMeanResponse(opened=last_commit_message(job, record))
        async for request in requests:
            if request.WhichOneof("message") == "finish":
                break
            raise JobMismatchError(
                f"job {settings.job} is finished, with {job.documents} documents, as mean "
                f"{job.mean}; use another job name for more"
            )
        yield StreamCorpusMeanResponse(finished=mean_message(record))


def parse_job(
    request: CorpusMeanJob, card: ModelCard, *, has_bos: bool, version: str
) -> tuple[JobSettings, Settings]:
    """Parse the settings of a job, and how to read its documents.

    Args:
        request: The message that opens the job.
        card: The model's card.
        has_bos: Whether the tokenizer has a BOS token.
        version: The version of actvec.

    Raises:
        RequestError: a value is out of range or does not fit this model; names the field.
    """
    with naming("open.job"):
        job = checked_name(request.job)
    with naming("open.name"):
        name = checked_name(request.name or request.job)
    if len(request.holder.encode()) > _TEXT_BYTES:
        raise RequestError("open.holder", f"is longer than {_TEXT_BYTES} bytes")
    truncation = parse_truncation("open.truncation", request.truncation)
    prepend_bos = parse_bos(request, "open.", has_bos=has_bos)
    target = parse_target(request, card, "open.")
    chat = parse_chat(request, "open.")
    record = MeanRecord(
        name=name,
        model=card.stamp_of(target),
        prepend_bos=prepend_bos,
        truncation=truncation,
        has_variance=request.variance,
        d_model=card.d_model,
        actvec_version=version,
        chat_template_sha256=card.chat_template_sha256,
        chat_template_kwargs=chat.kwargs,
        add_generation_prompt=chat.add_generation_prompt,
        chat_template_date=card.chat_template_date,
    )
    settings = Settings(
        pools=(),
        target=target,
        truncation=truncation,
        corpus_mean="",
        prepend_bos=prepend_bos,
        chat=chat,
    )
    return JobSettings(job, record), settings


def _left_out(skip: CorpusMeanSkip) -> JobDocument:
    if skip.reason not in grpc.StatusCode.__members__ or skip.reason == "OK":
        raise RequestError("skip.reason", f"is {skip.reason!r}, not the name of a google.rpc code")
    if len(skip.message.encode()) > _TEXT_BYTES:
        raise RequestError("skip.message", f"is longer than {_TEXT_BYTES} bytes")
    if len(skip.text_sha256) not in {0, 32}:
        raise RequestError("skip.text_sha256", f"has {len(skip.text_sha256)} bytes, not 32 or none")
    digest = skip.text_sha256 or hashlib.sha256(b"").digest()
    return JobDocument(skip.sequence, skip.id, digest, LeftOutError(skip.reason, skip.message))
