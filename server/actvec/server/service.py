"""`ActivationVectorService`, method by method; `boundary` decodes requests and maps errors."""

import platform
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib.metadata import version

from actvec.server.calls.idle import until_idle
from actvec.server.engine import Engine
from actvec.server.extractor import Extractor
from actvec.server.means.jobs import Jobs
from actvec.server.means.mean_stream import MeanStream
from actvec.server.means.service import MeanService
from actvec.server.means.store import MeanStore
from actvec.server.streams import VectorStream
from actvec.server.wire import mode_messages, model_stamp, parse_settings
from actvec.v1 import means_pb2, model_pb2, vectors_pb2

ACTVEC_VERSION = version("actvec")


class ActivationVectorService:
    """The contract's methods."""

    def __init__(self, engine: Engine, extractor: Extractor, store: MeanStore, jobs: Jobs) -> None:
        self._extractor = extractor
        self._store = store
        self._jobs = jobs
        self._means = MeanService(store, jobs, extractor)
        self._info = _model_info(engine, extractor)
        self._idle_seconds = extractor.limits.idle_seconds
        self._streams: set[VectorStream | MeanStream] = set()

    async def GetModelInfo(
        self, _: model_pb2.GetModelInfoRequest
    ) -> model_pb2.GetModelInfoResponse:
        """What is served."""
        return self._info

    async def ExtractVector(
        self, request: vectors_pb2.ExtractVectorRequest
    ) -> vectors_pb2.ExtractVectorResponse:
        """One document to one vector."""
        settings = parse_settings(request.settings, has_bos=self._extractor.has_bos)
        recipe = await self._means.recipe(settings)
        return vectors_pb2.ExtractVectorResponse(
            vector=await self._extractor.extract(request.text, recipe),
            stamp=recipe.stamp(self._extractor.card, ACTVEC_VERSION),
        )

    async def StreamVectors(
        self, requests: AsyncIterator[vectors_pb2.StreamVectorsRequest]
    ) -> AsyncIterator[vectors_pb2.StreamVectorsResponse]:
        """Documents to vectors, as they are ready."""
        stream = VectorStream(self._extractor, self._means.recipe, ACTVEC_VERSION)
        requests = until_idle(requests, self._idle_seconds, lambda: stream.busy)
        async with self._running(stream), aclosing(stream.run(requests)) as responses:
            async for response in responses:
                yield response

    async def StreamCorpusMean(
        self, requests: AsyncIterator[means_pb2.StreamCorpusMeanRequest]
    ) -> AsyncIterator[means_pb2.StreamCorpusMeanResponse]:
        """Documents to a mean, each counted exactly once."""
        stream = MeanStream(self._extractor, self._jobs, self._store, ACTVEC_VERSION)
        requests = until_idle(requests, self._idle_seconds)
        async with self._running(stream), aclosing(stream.run(requests)) as responses:
            async for response in responses:
                yield response

    async def ListCorpusMeans(
        self, request: means_pb2.ListCorpusMeansRequest
    ) -> means_pb2.ListCorpusMeansResponse:
        """The stored means, newest first."""
        return await self._means.list_means(request)

    async def GetCorpusMean(
        self, request: means_pb2.GetCorpusMeanRequest
    ) -> means_pb2.GetCorpusMeanResponse:
        """One record."""
        record = await self._means.get(request.corpus_mean)
        return means_pb2.GetCorpusMeanResponse(corpus_mean=record)

    async def DeleteCorpusMean(
        self, request: means_pb2.DeleteCorpusMeanRequest
    ) -> means_pb2.DeleteCorpusMeanResponse:
        """Remove a mean."""
        record = await self._means.delete(request.corpus_mean)
        return means_pb2.DeleteCorpusMeanResponse(corpus_mean=record)

    async def MergeCorpusMeans(
        self, request: means_pb2.MergeCorpusMeansRequest
    ) -> means_pb2.MergeCorpusMeansResponse:
        """Merge means into a new one."""
        record = await self._means.merge(request)
        return means_pb2.MergeCorpusMeansResponse(corpus_mean=record)

    async def DownloadCorpusMean(
        self, request: means_pb2.DownloadCorpusMeanRequest
    ) -> AsyncIterator[means_pb2.DownloadCorpusMeanResponse]:
        """A mean's file."""
        async with aclosing(self._means.download(request.corpus_mean)) as responses:
            async for response in responses:
                yield response

    async def UploadCorpusMean(
        self, requests: AsyncIterator[means_pb2.UploadCorpusMeanRequest]
    ) -> means_pb2.UploadCorpusMeanResponse:
        """Store a mean's file."""
        record = await self._means.upload(until_idle(requests, self._idle_seconds))
        return means_pb2.UploadCorpusMeanResponse(corpus_mean=record)

    def refuse(self) -> None:
        """Take nothing new: calls in flight finish what they have read."""
        self._extractor.refuse()
        for stream in self._streams:
            stream.stop()

    async def drain(self) -> None:
        """Wait until what was taken is computed and, for means, durable."""
        await self._jobs.drain()
        await self._extractor.drain()
        self._means.close()

    @asynccontextmanager
    async def _running(self, stream: VectorStream | MeanStream) -> AsyncIterator[None]:
        """Keep a stream where a shutdown finds it."""
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)


def _model_info(engine: Engine, extractor: Extractor) -> model_pb2.GetModelInfoResponse:
    card, limits = engine.card, extractor.limits
    return model_pb2.GetModelInfoResponse(
        model=model_stamp(card),
        architecture=card.architecture,
        n_layers=card.n_layers,
        n_layers_loaded=card.layers[-1] + 1,
        d_model=card.d_model,
        device=card.device,
        engine=engine.name,
        engine_note=card.engine_note,
        batch_invariant=card.batch_invariant,
        modes=mode_messages(card.d_model),
        limits=model_pb2.Limits(
            max_tokens=extractor.max_tokens,
            max_text_bytes=limits.text_bytes,
            max_message_bytes=limits.message_bytes,
            max_stream_documents=limits.stream_documents,
            max_queued_tokens=limits.queued_tokens,
            step_tokens=extractor.step_tokens,
        ),
        versions=model_pb2.Versions(
            actvec=ACTVEC_VERSION,
            torch=version("torch"),
            transformers=version("transformers"),
            transformer_lens=version("transformer-lens"),
            python=platform.python_version(),
        ),
    )
