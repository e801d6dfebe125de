"""One `StreamVectors` call: documents in, results out as they are ready, few of them inside."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from actvec.server.budget import purse
from actvec.server.engine.pools import Pools
from actvec.server.errors import DrainingError, InputError, RequestError
from actvec.server.extraction.extractor import Extractor
from actvec.server.extraction.recipe import Recipe
from actvec.server.extraction.settings import Settings
from actvec.server.model.text.tokenizer import TokenizedDocument
from actvec.server.rpc.status import status_of
from actvec.server.service.messages import document_vector, vector_stamp
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
    DocumentVector,
    StreamVectorsRequest,
    StreamVectorsResponse,
)

RecipeFor = Callable[[Settings], Awaitable[Recipe]]
"""Finds the mean that settings name."""

_MESSAGE_BYTES = 1 << 20
_ID_BYTES = 1024

# Limit on the bytes of one stream's vectors inside the server at a time.
_RESULT_BYTES = 128 << 20


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
            result = DocumentResult(id=document.id, sequence=document.sequence)
            if isinstance(outcome, InputError):
                self._finish(result, _document_error(outcome))
                continue
            try:
                step = recipe.step_document(outcome)
            except Exception as error:  # a pool that somebody registered may raise anything
                self._finish(result, _document_error(error))
                continue
            try:
                await self._lane.put(step, step.tokens, self._answer(result, outcome, recipe))
            except BaseException:
                # Not queued, so there will be no answer.
                self._inside -= 1
                raise

    def _answer(
        self, result: DocumentResult, tokens: TokenizedDocument, recipe: Recipe
    ) -> Callable[[Pools | Exception], None]:
        """Return the callback for the engine's outcome of a document."""

        def answer(outcome: Pools | Exception) -> None:
            if isinstance(outcome, Exception):
                self._finish(result, _document_error(outcome))
                return
            try:
                vector = recipe.vector(tokens, outcome)
                self._finish(result, document_vector(vector, self._encoding))
            except Exception as error:
                self._finish(result, _document_error(error))

        return answer

    def _finish(self, result: DocumentResult, outcome: DocumentVector | DocumentError) -> None:
        if isinstance(outcome, DocumentVector):
            result.vector.CopyFrom(outcome)
        else:
            result.error.CopyFrom(outcome)
        self._results.append(result)
        self._changed.set()

    async def _next_results(self, reader: asyncio.Task[None]) -> list[DocumentResult]:
        """Return ready results, at least one and about a full message; empty at the end."""
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


def _document_error(error: Exception) -> DocumentError:
    """Encode why a document has no vector."""
    status = status_of(of_document(error) if isinstance(error, InputError) else error)
    return DocumentError(code=status.code.value[0], message=status.message, field=status.field)
