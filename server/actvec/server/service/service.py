"""`ActivationVectorService`, method by method; `boundary` decodes requests and maps errors."""

import platform
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

from actvec.server.budget import purse
from actvec.server.engine.packed import Engine
from actvec.server.errors import InputError
from actvec.server.extraction.extractor import Extractor
from actvec.server.jobs.registry import Jobs
from actvec.server.means.store import MeanStore
from actvec.server.rpc.idle import until_idle
from actvec.server.service.mean_methods import MeanMethods
from actvec.server.service.mean_stream import MeanCall
from actvec.server.service.messages import (
    fill_vector,
    mode_messages,
    stamp_message,
    vector_stamp,
)
from actvec.server.service.requests import (
    MOST_POOLS,
    of_document,
    parse_encoding,
    parse_request,
    parse_settings,
)
from actvec.server.service.vector_stream import VectorsCall
from actvec.v1 import means_pb2, model_pb2, vectors_pb2

ACTVEC_VERSION = version("actvec")


class ActivationVectorService(MeanMethods):
    """The contract's methods; those about stored means are in `MeanMethods`."""

    def __init__(self, engine: Engine, extractor: Extractor, store: MeanStore, jobs: Jobs) -> None:
        super().__init__(extractor, store, jobs)
        self._info = _model_info(engine, extractor)
        self._streams: set[VectorsCall | MeanCall] = set()

    async def GetModelInfo(
        self, _: model_pb2.GetModelInfoRequest
    ) -> model_pb2.GetModelInfoResponse:
        """Describe what this server serves."""
        return self._info

    async def ExtractVector(
        self, request: vectors_pb2.ExtractVectorRequest
    ) -> vectors_pb2.ExtractVectorResponse:
        """Turn one document into one vector."""
        card, has_bos = self._card, self._extractor.has_bos
        settings = parse_settings(request.settings, card, self._limits, has_bos=has_bos)
        encoding = parse_encoding(request.settings)
        # Once as numbers, and once in the message.
        purse().take(2 * settings.vector_bytes(card.d_model))
        recipe = await self.recipe(settings)
        try:
            document = await self._extractor.extract(parse_request(request), recipe)
        except InputError as error:
            raise of_document(error) from None
        response = vectors_pb2.ExtractVectorResponse(
            stamp=vector_stamp(card, recipe, ACTVEC_VERSION)
        )
        fill_vector(response.vector, document, encoding)
        return response

    def StreamVectors(
        self, requests: AsyncIterator[vectors_pb2.StreamVectorsRequest]
    ) -> AsyncGenerator[vectors_pb2.StreamVectorsResponse, None]:
        """Turn documents into vectors, as they are ready."""
        return self._run(VectorsCall(self._extractor, self.recipe, ACTVEC_VERSION), requests)

    def StreamCorpusMean(
        self, requests: AsyncIterator[means_pb2.StreamCorpusMeanRequest]
    ) -> AsyncGenerator[means_pb2.StreamCorpusMeanResponse, None]:
        """Turn documents into a mean, and count each exactly once."""
        stream = MeanCall(self._extractor, self._jobs, self._store, ACTVEC_VERSION)
        return self._run(stream, requests)

    def refuse(self) -> None:
        """Accept nothing new; calls in flight finish what they have read."""
        self._extractor.refuse()
        for stream in self._streams:
            stream.stop()

    async def drain(self) -> None:
        """Wait until everything accepted is computed and, for means, durable."""
        await self._jobs.drain()
        await self._extractor.drain()
        self.close()

    async def _run(
        self, stream: VectorsCall | MeanCall, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[Any, None]:
        """Yield the responses of a stream, which a shutdown finds meanwhile."""
        self._streams.add(stream)
        requests = until_idle(requests, self._limits.idle_seconds, lambda: stream.busy)
        try:
            async with aclosing(stream.run(requests)) as responses:
                async for response in responses:
                    yield response
        finally:
            self._streams.discard(stream)


def _model_info(engine: Engine, extractor: Extractor) -> model_pb2.GetModelInfoResponse:
    card, limits = engine.card, extractor.limits
    return model_pb2.GetModelInfoResponse(
        model=stamp_message(card.stamp),
        architecture=card.architecture,
        n_layers=card.n_layers,
        n_layers_loaded=card.n_layers_loaded,
        d_model=card.d_model,
        device=",".join(extractor.devices),
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
            max_vector_numbers=limits.vector_numbers,
            max_pools=MOST_POOLS,
        ),
        layers=card.layers_on_offer,
        hooks=card.hooks,
        has_chat_template=bool(card.chat_template_sha256),
        versions=model_pb2.Versions(
            actvec=ACTVEC_VERSION,
            torch=version("torch"),
            transformers=version("transformers"),
            transformer_lens=version("transformer-lens"),
            python=platform.python_version(),
        ),
    )
