"""One `StreamCorpusMean` call: documents in, progress and commit points out, the mean last."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from google.protobuf.json_format import MessageToJson

from actvec.server.errors import DrainingError, JobMismatchError, LeftOutError, RequestError
from actvec.server.extractor import Extractor
from actvec.server.means.checkpoint import FinishedJob, Progress
from actvec.server.means.jobs import Holding, Jobs
from actvec.server.means.mean_job import JobDocument, JobSettings, MeanJob
from actvec.server.means.store import MeanStore, checked_name
from actvec.server.tokens import resolve_bos
from actvec.server.wire import Settings, model_stamp, parse_truncation, truncation_message
from actvec.v1.means_pb2 import (
    CorpusMean,
    CorpusMeanCommit,
    CorpusMeanJob,
    CorpusMeanProgress,
    CorpusMeanSkip,
    StreamCorpusMeanRequest,
    StreamCorpusMeanResponse,
)
from actvec.v1.vectors_pb2 import VECTOR_ENCODING_FLOAT32

_PROGRESS_SECONDS = 1.0
_TEXT_BYTES = 1024
_UNCOMMITTED_DOCUMENTS = 10_000


class MeanStream:
    """Holds a job for one client: reads documents, commits now and then, finishes the mean."""

    def __init__(self, extractor: Extractor, jobs: Jobs, store: MeanStore, version: str) -> None:
        self._extractor = extractor
        self._jobs = jobs
        self._store = store
        self._version = version
        self._reader: asyncio.Task[bool] | None = None
        self._stopped: Exception | None = None

    async def run(
        self, requests: AsyncIterator[StreamCorpusMeanRequest]
    ) -> AsyncGenerator[StreamCorpusMeanResponse, None]:
        """Yield where the job stands, how it goes, and the mean.

        Raises:
            RequestError: a message broke the contract.
            JobHeldError: another client holds the job, or has taken it.
            JobMismatchError: the job has other settings, or the documents do not follow it.
            DrainingError: the server is shutting down; what was taken is committed.
            JobWaitsError: there was no memory for a document; the job stands at its last commit.
            StorageError: the disk is full or cannot be written.
        """
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "open":
            raise RequestError("open", "the first message of a stream must open the job")
        settings, tokenizing = self._parse(first.open)
        holding = Holding(first.open.holder, self.stop)
        take_over, explicit = first.open.take_over, first.open.explicit_finish
        del first
        job = await self._jobs.open(settings, holding, self._store, take_over=take_over)
        if isinstance(job, FinishedJob):
            async for response in self._already_finished(requests, settings, job):
                yield response
            return
        try:
            yield StreamCorpusMeanResponse(opened=_commit_message(job.committed))
            reading = self._read(requests, job, tokenizing, explicit=explicit)
            self._reader = reader = asyncio.create_task(reading)
            if self._stopped is not None:
                reader.cancel()
            async for response in self._events(job, reader):
                yield response
            if self._stopped is not None:
                yield StreamCorpusMeanResponse(commit=_commit_message(await job.commit()))
                raise self._stopped
            if await reader:
                mean = await job.finish(self._store)
                yield StreamCorpusMeanResponse(commit=_commit_message(job.committed))
                yield StreamCorpusMeanResponse(finished=mean)
        finally:
            if self._reader is not None:
                self._reader.cancel()
            self._jobs.end(settings.job, holding)

    def stop(self, reason: Exception | None = None) -> None:
        """Read nothing more; the stream ends once what was read is durable."""
        self._stopped = reason or DrainingError()
        if self._reader is not None:
            self._reader.cancel()

    async def _events(
        self, job: MeanJob, reader: "asyncio.Task[bool]"
    ) -> AsyncGenerator[StreamCorpusMeanResponse, None]:
        """Progress every second and a commit every few, until reading has ended."""
        began, tokens = time.monotonic(), job.tokens
        last_commit = began
        while not reader.done():
            await asyncio.wait([reader], timeout=_PROGRESS_SECONDS)
            now = time.monotonic()
            due = now - last_commit >= self._extractor.limits.commit_seconds
            if job.uncommitted and (due or job.uncommitted >= _UNCOMMITTED_DOCUMENTS):
                yield StreamCorpusMeanResponse(commit=_commit_message(await job.commit()))
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
        """Take documents until the client half-closes; returns whether the mean is finished."""
        async for request in requests:
            job.last_message = time.monotonic()
            if await self._take(request, job, settings):
                return True
            # Not kept alive while the next one is awaited.
            del request
        return not explicit

    async def _take(
        self, request: StreamCorpusMeanRequest, job: MeanJob, settings: Settings
    ) -> bool:
        """Do as one message says; returns whether it is the last."""
        kind = request.WhichOneof("message")
        if kind == "finish":
            if request.finish.documents != job.next_sequence:
                raise RequestError(
                    "finish.documents",
                    f"is {request.finish.documents}; the job has {job.next_sequence}",
                )
            return True
        if kind == "skip":
            await job.add(_left_out(request.skip))
        elif kind == "documents":
            documents = request.documents.documents
            async for document, content in self._extractor.tokenized(documents, settings):
                digest = hashlib.sha256(document.text.encode()).digest()
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
        """A job that was finished before, perhaps without the client hearing of it."""
        record = await asyncio.to_thread(self._store.find, job.mean, settings.record.model)
        yield StreamCorpusMeanResponse(
            opened=CorpusMeanCommit(
                next_sequence=job.documents,
                documents=record.documents,
                tokens=record.tokens,
                skipped=record.skipped,
                corpus_sha256=bytes.fromhex(record.corpus_sha256),
            )
        )
        async for request in requests:
            if request.WhichOneof("message") == "finish":
                break
            raise JobMismatchError(
                f"job {settings.job} is finished, with {job.documents} documents, as mean "
                f"{job.mean}; use another job name for more"
            )
        yield StreamCorpusMeanResponse(finished=record)

    def _parse(self, request: CorpusMeanJob) -> tuple[JobSettings, Settings]:
        job = checked_name("open.job", request.job)
        name = checked_name("open.name", request.name or request.job)
        if len(request.holder.encode()) > _TEXT_BYTES:
            raise RequestError("open.holder", f"is longer than {_TEXT_BYTES} bytes")
        truncation = parse_truncation("open.truncation", request.truncation)
        prepend_bos = resolve_bos(
            request.prepend_bos if request.HasField("prepend_bos") else None,
            has_bos=self._extractor.has_bos,
            field="open.prepend_bos",
        )
        record = CorpusMean(
            name=name,
            model=model_stamp(self._extractor.card),
            prepend_bos=prepend_bos,
            truncation=truncation_message(truncation),
            has_variance=request.variance,
            d_model=self._extractor.card.d_model,
            actvec_version=self._version,
        )
        # The version may change under a job, the numbers may not.
        same = CorpusMean()
        same.CopyFrom(record)
        same.ClearField("actvec_version")
        canonical = MessageToJson(same, indent=None, sort_keys=True)
        settings = Settings(
            mode="long",
            truncation=truncation,
            encoding=VECTOR_ENCODING_FLOAT32,
            corpus_mean="",
            prepend_bos=prepend_bos,
        )
        return JobSettings(job, canonical, record, request.variance), settings


def _left_out(skip: CorpusMeanSkip) -> JobDocument:
    if skip.reason not in grpc.StatusCode.__members__ or skip.reason == "OK":
        raise RequestError("skip.reason", f"is {skip.reason!r}, not the name of a google.rpc code")
    if len(skip.message.encode()) > _TEXT_BYTES:
        raise RequestError("skip.message", f"is longer than {_TEXT_BYTES} bytes")
    if len(skip.text_sha256) not in {0, 32}:
        raise RequestError("skip.text_sha256", f"has {len(skip.text_sha256)} bytes, not 32 or none")
    digest = skip.text_sha256 or hashlib.sha256(b"").digest()
    return JobDocument(skip.sequence, skip.id, digest, LeftOutError(skip.reason, skip.message))


def _commit_message(progress: Progress) -> CorpusMeanCommit:
    message = CorpusMeanCommit(
        next_sequence=progress.next_sequence,
        documents=progress.accumulator.documents,
        tokens=progress.accumulator.tokens,
        corpus_sha256=progress.corpus,
    )
    for reason, entry in progress.skipped.items():
        message.skipped.add(reason=reason, **vars(entry))
    return message
