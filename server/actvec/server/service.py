"""`ActivationVectorService`, method by method; `boundary` decodes requests and maps errors."""

import platform
from collections.abc import AsyncIterator
from importlib.metadata import version

from actvec.server.engine import Engine
from actvec.server.extractor import Extractor
from actvec.server.streams import VectorStream
from actvec.server.wire import mode_messages, model_stamp, parse_settings, vector_stamp
from actvec.v1 import model_pb2, vectors_pb2

ACTVEC_VERSION = version("actvec")


class ActivationVectorService:
    """The methods of the contract that this server has."""

    def __init__(self, engine: Engine, extractor: Extractor) -> None:
        self._extractor = extractor
        self._info = _model_info(engine, extractor)
        self._streams: set[VectorStream] = set()

    async def GetModelInfo(  # noqa: N802 - the contract's name
        self, _: model_pb2.GetModelInfoRequest
    ) -> model_pb2.GetModelInfoResponse:
        """What is served."""
        return self._info

    async def ExtractVector(  # noqa: N802
        self, request: vectors_pb2.ExtractVectorRequest
    ) -> vectors_pb2.ExtractVectorResponse:
        """One document to one vector."""
        settings = parse_settings(request.settings)
        return vectors_pb2.ExtractVectorResponse(
            vector=await self._extractor.extract(request.text, settings),
            stamp=vector_stamp(self._extractor.card, settings, ACTVEC_VERSION),
        )

    async def StreamVectors(  # noqa: N802
        self, requests: AsyncIterator[vectors_pb2.StreamVectorsRequest]
    ) -> AsyncIterator[vectors_pb2.StreamVectorsResponse]:
        """Documents to vectors, as they are ready."""
        stream = VectorStream(self._extractor, ACTVEC_VERSION)
        self._streams.add(stream)
        try:
            async for response in stream.run(requests):
                yield response
        finally:
            self._streams.discard(stream)

    def refuse(self) -> None:
        """Take nothing new: calls in flight finish what they have read."""
        self._extractor.refuse()
        for stream in self._streams:
            stream.stop()


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
        modes=mode_messages(card.d_model),
        limits=model_pb2.Limits(
            max_tokens=card.context,
            max_text_bytes=limits.text_bytes,
            max_message_bytes=limits.message_bytes,
            max_stream_documents=limits.stream_documents,
            max_queued_tokens=limits.queued_tokens,
            step_tokens=limits.step_tokens,
        ),
        versions=model_pb2.Versions(
            actvec=ACTVEC_VERSION,
            torch=version("torch"),
            transformers=version("transformers"),
            transformer_lens=version("transformer-lens"),
            python=platform.python_version(),
        ),
    )
