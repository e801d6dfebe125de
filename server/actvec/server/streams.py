"""One `StreamVectors` call: documents in, results out as they are ready, few of them inside."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from actvec.server.errors import DrainingError, RequestError
from actvec.server.extractor import Extractor
from actvec.server.pooler import Pools
from actvec.server.recipe import Recipe
from actvec.server.status import status_of
from actvec.server.tokens import TokenizedDocument
from actvec.server.wire import Settings, parse_settings
from actvec.v1.vectors_pb2 import (
    DocumentError,
    DocumentResult,
    DocumentVector,
    StreamVectorsRequest,
    StreamVectorsResponse,
)

RecipeFor = Callable[[Settings], Awaitable[Recipe]]
"""Finds the mean that settings name."""

_MESSAGE_BYTES = 1 << 20
_ID_BYTES = 1024


class VectorStream:
    """Reads documents and yields results, each on its own.

    A document is in the stream from when it was read to when its result was taken by the
    transport. Where that many as the limit are, nothing more is read: a client that stops reading
    stops being read, and memory stays bounded.
    """

    def __init__(self, extractor: Extractor, recipe_for: RecipeFor, version: str) -> None:
        self._extractor = extractor
        self._recipe_for = recipe_for
        self._version = version
        self._lane = extractor.lane()
        self._window = asyncio.Semaphore(extractor.limits.stream_documents)
        self._inside = 0
        self._results: deque[DocumentResult] = deque()
        self._changed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._stopped: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether documents are inside."""
        return self._inside > 0

    async def run(
        self, requests: AsyncIterator[StreamVectorsRequest]
    ) -> AsyncGenerator[StreamVectorsResponse, None]:
        """Yield the stamp, then results until every document that was read is answered.

        Raises:
            RequestError: a message broke the contract; after the results of what came before it.
            DrainingError: the server is shutting down; likewise.
        """
        first = await anext(requests, None)
        if first is None or not first.HasField("settings"):
            raise RequestError("settings", "the first message of a stream must hold the settings")
        settings = parse_settings(first.settings, has_bos=self._extractor.has_bos)
        recipe = await self._recipe_for(settings)
        first.ClearField("settings")
        # The reader drops each one: none lives longer than it waits.
        beginning = [first]
        del first
        yield StreamVectorsResponse(stamp=recipe.stamp(self._extractor.card, self._version))
        reading = self._read(beginning.pop(), requests, recipe)
        self._reader = reader = asyncio.create_task(reading)
        reader.add_done_callback(lambda _: self._changed.set())
        if self._stopped is not None:
            reader.cancel()
        try:
            while results := await self._next_results(reader):
                yield StreamVectorsResponse(results=results)
                self._inside -= len(results)
                for _ in results:
                    self._window.release()
        finally:
            reader.cancel()
            self._lane.close()
        if self._stopped is not None:
            raise self._stopped
        await reader

    def stop(self) -> None:
        """Read nothing more; the stream ends when what was read is answered."""
        self._stopped = DrainingError()
        if self._reader is not None:
            self._reader.cancel()

    async def _read(
        self,
        first: StreamVectorsRequest,
        requests: AsyncIterator[StreamVectorsRequest],
        recipe: Recipe,
    ) -> None:
        await self._accept(first, recipe)
        del first
        async for request in requests:
            if request.HasField("settings"):
                raise RequestError("settings", "belong in the first message of a stream only")
            await self._accept(request, recipe)
            del request

    async def _accept(self, request: StreamVectorsRequest, recipe: Recipe) -> None:
        """Queue the documents of one message."""
        index = -1
        async for document, tokens in self._extractor.tokenized(request.documents, recipe.settings):
            index += 1
            await self._window.acquire()
            self._inside += 1
            outcome: TokenizedDocument | RequestError = tokens
            if len(document.id.encode()) > _ID_BYTES:
                field = f"documents[{index}].id"
                outcome = RequestError(field, f"is longer than {_ID_BYTES} bytes")
            # Without the text, which nobody needs any more.
            result = DocumentResult(id=document.id, sequence=document.sequence)
            if isinstance(outcome, RequestError):
                self._finish(result, status_of(outcome).document_error())
                continue
            try:
                await self._lane.put(
                    recipe.step_document(outcome),
                    len(outcome.ids),
                    self._answer(result, outcome, recipe),
                )
            except BaseException:
                # Not queued, so there will be no answer.
                self._inside -= 1
                raise

    def _answer(
        self, result: DocumentResult, tokens: TokenizedDocument, recipe: Recipe
    ) -> Callable[[Pools | Exception], None]:
        """What to do with the engine's outcome for a document."""

        def answer(outcome: Pools | Exception) -> None:
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                self._finish(result, recipe.vector(tokens, outcome))
            except Exception as error:
                self._finish(result, status_of(error).document_error())

        return answer

    def _finish(self, result: DocumentResult, outcome: DocumentVector | DocumentError) -> None:
        if isinstance(outcome, DocumentVector):
            result.vector.CopyFrom(outcome)
        else:
            result.error.CopyFrom(outcome)
        self._results.append(result)
        self._changed.set()

    async def _next_results(self, reader: asyncio.Task[None]) -> list[DocumentResult]:
        """What is ready, at least one and about a message full; empty at the end."""
        while not self._results:
            if reader.done() and not self._inside:
                return []
            self._changed.clear()
            await self._changed.wait()
        results = [self._results.popleft()]
        size = results[0].ByteSize()
        while self._results and size < _MESSAGE_BYTES:
            results.append(self._results.popleft())
            size += results[-1].ByteSize()
        return results
