"""One `StreamVectors` call: documents in, results out as they are ready, few of them inside."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

from actvec.server.budget import purse
from actvec.server.engine.pools import Pools
from actvec.server.errors import DrainingError, InputError, RequestError
from actvec.server.extraction.extractor import Extractor
from actvec.server.extraction.recipe import PooledDocument, Recipe
from actvec.server.extraction.settings import Settings
from actvec.server.model.text.tokenized import TokenizedDocument
from actvec.server.rpc.status import Status, status_of
from actvec.server.service.messages import fill_vector, vector_stamp
from actvec.server.service.requests import (
    Encoding,
    SentDocument,
    of_document,
    parse_encoding,
    parse_settings,
)
from actvec.v1.vectors_pb2 import (
    VECTOR_ENCODING_FLOAT32,
    DocumentError,
    DocumentResult,
    StreamVectorsRequest,
    StreamVectorsResponse,
)

RecipeFor = Callable[[Settings], Awaitable[Recipe]]
"""Finds the mean that settings name."""

_MESSAGE_BYTES = 1 << 20
_ID_BYTES = 1024

# Limit on the bytes of one stream's vectors inside the server at a time.
_RESULT_BYTES = 128 << 20


class _Name(NamedTuple):
    """What names a document in its result."""

    id: str
    sequence: int


class VectorsCall:
    """Reads documents and yields results, one for each.

    A document is inside the stream from its read until the transport takes its result. At the
    limit, the stream reads no more: a client that stops reading is no longer read, and memory stays
    bounded.
    """

    def __init__(self, extractor: Extractor, recipe_for: RecipeFor, version: str) -> None:
        self._extractor = extractor
        self._recipe_for = recipe_for
        self._version = version
        self._lane = extractor.lane()
        self._encoding: Encoding = VECTOR_ENCODING_FLOAT32
        self._window = asyncio.Semaphore(extractor.limits.stream_documents)
        self._inside = 0
        self._responses: deque[StreamVectorsResponse] = deque()
        self._filled = 0
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
        """Yield the stamp, then results until every document read is answered.

        Raises:
            RequestError: a message broke the contract; after the results of the documents before
                it.
            BusyError: there is no memory for its vectors.
            DrainingError: the server is shutting down; after the results of the documents read.
        """
        first = await anext(requests, None)
        if first is None or not first.HasField("settings"):
            raise RequestError("settings", "the first message of a stream must hold the settings")
        card, limits = self._extractor.card, self._extractor.limits
        settings = parse_settings(first.settings, card, limits, has_bos=self._extractor.has_bos)
        self._encoding = parse_encoding(first.settings)
        self._hold_results(settings.vector_bytes(card.d_model))
        recipe = await self._recipe_for(settings)
        first.ClearField("settings")
        # Only the reader holds a message, and no longer than it needs.
        beginning = [first]
        del first
        stamp = vector_stamp(self._extractor.card, recipe, self._version)
        yield StreamVectorsResponse(stamp=stamp)
        reading = self._read(beginning.pop(), requests, recipe)
        self._reader = reader = asyncio.create_task(reading)
        reader.add_done_callback(lambda _: self._changed.set())
        if self._stopped is not None:
            reader.cancel()
        try:
            while (response := await self._next_response(reader)) is not None:
                results = len(response.results)
                yield response
                # Not kept while the next one is awaited.
                del response
                self._inside -= results
                for _ in range(results):
                    self._window.release()
        finally:
            reader.cancel()
            self._lane.close()
        if self._stopped is not None:
            raise self._stopped
        await reader

    def _hold_results(self, size: int) -> None:
        """Limit the documents inside by the bytes of their vectors, and account for them.

        Args:
            size: Bytes of one vector.
        """
        documents = min(self._extractor.limits.stream_documents, max(_RESULT_BYTES // size, 1))
        self._window = asyncio.Semaphore(documents)
        purse().take(documents * size)

    def stop(self) -> None:
        """Stop reading; the stream ends once everything read is answered."""
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
        documents = [SentDocument(document) for document in request.documents]
        async for document, tokens in self._extractor.tokenized(documents, recipe.settings):
            index += 1
            await self._window.acquire()
            self._inside += 1
            outcome: TokenizedDocument | InputError = tokens
            if len(document.id.encode()) > _ID_BYTES:
                field = f"documents[{index}].id"
                outcome = RequestError(field, f"is longer than {_ID_BYTES} bytes")
            # Without the text, which is no longer needed.
            name = _Name(document.id, document.sequence)
            if isinstance(outcome, InputError):
                self._finish(name, outcome)
                continue
            try:
                step = recipe.step_document(outcome)
            except Exception as error:  # a pool that somebody registered may raise anything
                self._finish(name, error)
                continue
            try:
                await self._lane.put(step, step.tokens, self._answer(name, outcome, recipe))
            except BaseException:
                # Not queued, so there will be no answer.
                self._inside -= 1
                raise

    def _answer(
        self, name: _Name, tokens: TokenizedDocument, recipe: Recipe
    ) -> Callable[[Pools | Exception], None]:
        """Return the callback for the engine's outcome of a document."""

        def answer(outcome: Pools | Exception) -> None:
            if isinstance(outcome, Exception):
                self._finish(name, outcome)
                return
            try:
                vector = recipe.vector(tokens, outcome)
            except Exception as error:
                self._finish(name, error)
            else:
                self._finish(name, vector)

        return answer

    def _finish(self, name: _Name, outcome: PooledDocument | Exception) -> None:
        """Write a document's result into the last response, or a new one if that is full.

        A message of its own for each result would be copied, and freed. After every 10,000 pieces
        of memory that its messages free, protobuf returns all free memory of the heap to the
        system: up to a tenth of a second per gigabyte, in which no other thread runs. Each message
        is at least one piece, and so is each look at a submessage or list that is not set.
        """
        if not self._responses or self._filled >= _MESSAGE_BYTES:
            self._responses.append(StreamVectorsResponse())
            self._filled = 0
        result = self._responses[-1].results.add(id=name.id, sequence=name.sequence)
        if not isinstance(outcome, Exception):
            try:
                fill_vector(result.vector, outcome, self._encoding)
            except Exception as error:
                result.MergeFrom(_error_result(error))
        else:
            result.MergeFrom(_error_result(outcome))
        self._filled += result.ByteSize()
        self._changed.set()

    async def _next_response(self, reader: asyncio.Task[None]) -> StreamVectorsResponse | None:
        """Return ready results, at least one and about a full message; None at the end."""
        while not self._responses:
            if reader.done() and not self._inside:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._responses.popleft()


def _error_result(error: Exception) -> DocumentResult:
    """Return the result that says why a document has no vector; without the document's name."""
    return _result_of(status_of(of_document(error) if isinstance(error, InputError) else error))


# A message of thousands of documents may have one error as many times.
@lru_cache(maxsize=16)
def _result_of(status: Status) -> DocumentResult:
    error = DocumentError(code=status.code.value[0], message=status.message, field=status.field)
    return DocumentResult(error=error)
