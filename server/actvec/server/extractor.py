"""From texts to vectors: the tokenizer, the scheduler and an engine, joined."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from functools import partial

from actvec.server.config import Limits
from actvec.server.errors import RequestError, TextTooLargeError
from actvec.server.pooler import Pools
from actvec.server.recipe import Recipe
from actvec.server.runner import StepRunner
from actvec.server.scheduler import Lane, Scheduler
from actvec.server.step import StepDocument
from actvec.server.tokenizing import Tokenizing, slices
from actvec.server.tokens import TokenizedDocument, Tokenizer
from actvec.server.wire import Settings
from actvec.v1 import vectors_pb2

# Characters that are tokenized in less time than another thread takes to wake.
_SHORT_TEXT = 500

EngineLane = Lane[StepDocument, Pools]


class Extractor:
    """Turns texts into vectors. The forward pass and long tokenizing run on their own threads."""

    def __init__(
        self, runner: StepRunner, tokenizer: Tokenizer, limits: Limits, step_tokens: int
    ) -> None:
        self.card = runner.card
        self.limits = limits
        self.step_tokens = step_tokens
        self._tokenizer = tokenizer
        self._scheduler: Scheduler[StepDocument, Pools] = Scheduler(
            runner, step_tokens=step_tokens, queued_tokens=limits.queued_tokens
        )
        self._tokenizing = Tokenizing()

    @property
    def max_tokens(self) -> int:
        """Tokens of a document that are taken, BOS included."""
        return self._tokenizer.context

    @property
    def has_bos(self) -> bool:
        """Whether the tokenizer has a BOS token."""
        return self._tokenizer.has_bos

    def start(self, thread: Executor) -> None:
        """Compute from now on, on this one thread; called on the event loop."""
        self._scheduler.start(thread)

    def refuse(self) -> None:
        """Take nothing new from now on."""
        self._scheduler.refuse()

    async def drain(self) -> None:
        """Compute what waits, then leave the engine's thread and end the tokenizers'."""
        await self._scheduler.drain()
        self._tokenizing.close()

    def lane(self, *, interactive: bool = False) -> EngineLane:
        """A lane for one call."""
        return self._scheduler.lane(interactive=interactive)

    def waiting_tokens(self, *, interactive: bool) -> int:
        """Tokens that wait, of unary calls or of streams."""
        return self._scheduler.waiting_tokens(interactive=interactive)

    async def tokenized(
        self, documents: Sequence[vectors_pb2.Document], settings: Settings
    ) -> AsyncIterator[tuple[vectors_pb2.Document, TokenizedDocument | RequestError]]:
        """The documents of a message with their tokens; one that has none has its error.

        They are tokenized off the event loop, and a few at a time, as they are asked for: a message
        may hold more than a stream has room for, and other streams wait for the same thread.
        """
        for some, texts in slices(documents):
            tokens = await self._tokenizing.run(
                partial(self._tokenize_each, texts, settings), sum(map(len, texts))
            )
            for pair in zip(some, tokens, strict=True):
                yield pair

    async def extract(self, text: str, recipe: Recipe) -> vectors_pb2.DocumentVector:
        """The vector of one text, ahead of the bulk streams.

        Raises:
            RequestError: the text cannot be tokenized as asked.
            NotFiniteError: its states are not finite.
            EncodingRangeError: its vector does not fit the encoding.
            QueueFullError: too many such calls wait already.
            DrainingError: the server is shutting down.
        """
        if len(text) <= _SHORT_TEXT:
            document = self._tokenize_one(text, recipe.settings)
        else:
            document = await self._tokenizing.run(
                partial(self._tokenize_one, text, recipe.settings), len(text), interactive=True
            )
        if isinstance(document, RequestError):
            raise document
        outcome: asyncio.Future[Pools | Exception] = asyncio.get_running_loop().create_future()

        def done(result: Pools | Exception) -> None:
            # A call that was cancelled a moment ago has not closed its lane yet.
            if not outcome.done():
                outcome.set_result(result)

        lane = self.lane(interactive=True)
        try:
            await lane.put(recipe.step_document(document), len(document.ids), done)
            pools = await outcome
        finally:
            lane.close()
        if isinstance(pools, Exception):
            raise pools
        return recipe.vector(document, pools)

    def _tokenize_each(
        self, texts: Sequence[str], settings: Settings
    ) -> list[TokenizedDocument | RequestError]:
        return [self._tokenize_one(text, settings) for text in texts]

    def _tokenize_one(self, text: str, settings: Settings) -> TokenizedDocument | RequestError:
        limit = self.limits.text_bytes
        if len(text) > limit or len(text.encode()) > limit:
            return TextTooLargeError("text", f"is larger than the limit of {limit} bytes; split it")
        try:
            return self._tokenizer(text, settings.truncation, prepend_bos=settings.prepend_bos)
        except RequestError as error:
            return error
