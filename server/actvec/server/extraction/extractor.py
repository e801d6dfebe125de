"""From documents to vectors: joins the tokenizer, the scheduler and an engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from actvec.server.config import Limits
from actvec.server.engine.pools import Pools
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import StepDocument
from actvec.server.errors import InputError
from actvec.server.extraction.contents import Content, TextContent
from actvec.server.extraction.lanes import Lane
from actvec.server.extraction.reading import Read, Reader
from actvec.server.extraction.recipe import PooledDocument, Recipe
from actvec.server.extraction.scheduler import Scheduler
from actvec.server.extraction.settings import Settings
from actvec.server.extraction.tokenizing import D, R, Tokenizing, size_of, slices
from actvec.server.model.text.tokenizer import Tokenizer

# Characters that tokenize in less time than it takes to wake another thread.
_SHORT_TEXT = 500

EngineLane = Lane[StepDocument, Pools]


class Extractor:
    """Turns documents into vectors.

    Forward passes and long tokenizing run on their own threads.

    Args:
        runners: The runner of each engine; all engines have copies of one model.
        tokenizer: The model's tokenizer.
        limits: What the server refuses.
        step_tokens: Tokens of a step.
    """

    def __init__(
        self,
        runners: Sequence[StepRunner],
        tokenizer: Tokenizer,
        limits: Limits,
        step_tokens: int,
    ) -> None:
        self.runners = runners
        self.card = runners[0].card
        self.limits = limits
        self.step_tokens = step_tokens
        self._tokenizer = tokenizer
        self._scheduler: Scheduler[StepDocument, Pools] = Scheduler(
            step_tokens=step_tokens, queued_tokens=limits.queued_tokens
        )
        self._reader = Reader(tokenizer, limits.text_bytes)
        self._tokenizing = Tokenizing()

    @property
    def max_tokens(self) -> int:
        """The most tokens of a document, BOS included."""
        return self._tokenizer.context

    @property
    def has_bos(self) -> bool:
        """Whether the tokenizer has a BOS token."""
        return self._tokenizer.has_bos

    @property
    def devices(self) -> list[str]:
        """The device of each engine."""
        return [runner.card.device for runner in self.runners]

    @property
    def engines_lost(self) -> int:
        """How many engines were taken out; their sums are lost with them."""
        return self._scheduler.taken_out

    def start(self, threads: Sequence[Executor]) -> None:
        """Start to compute, on one single thread per engine. Call it on the event loop."""
        for runner, thread in zip(self.runners, threads, strict=True):
            self._scheduler.start(thread, runner, runner.is_lost)

    def take_out(self, runner: StepRunner) -> bool:
        """Give a lost engine no more documents; returns False if it is the last one."""
        return self._scheduler.take_out(runner)

    def refuse(self) -> None:
        """Refuse new documents from now on."""
        self._scheduler.refuse()

    async def drain(self) -> None:
        """Compute the queued documents, then release the engines' threads and end the others."""
        await self._scheduler.drain()
        self._tokenizing.close()

    def lane(self, *, interactive: bool = False) -> EngineLane:
        """A lane for one call."""
        return self._scheduler.lane(interactive=interactive)

    def waiting_tokens(self, *, interactive: bool) -> int:
        """Queued tokens of unary calls or of streams."""
        return self._scheduler.waiting_tokens(interactive=interactive)

    async def tokenized(
        self, documents: Sequence[D], settings: Settings
    ) -> AsyncIterator[tuple[D, Read]]:
        """Yield the documents of a message with their tokens, or the error of one that has none.

        Other threads tokenize them, a few at a time, as the caller asks for them: a message may
        hold more than a stream has room for, and other streams need the same thread.
        """
        async for pair in self._each(documents, partial(self._reader, settings=settings)):
            yield pair

    async def digested(
        self, documents: Sequence[D], settings: Settings
    ) -> AsyncIterator[tuple[D, Read, bytes]]:
        """As `tokenized`, with the digest of each content: of an empty text if it is unreadable."""

        def read(content: Content | InputError) -> tuple[Read, bytes]:
            readable = TextContent("") if isinstance(content, InputError) else content
            return self._reader(content, settings), readable.digest()

        async for document, (found, digest) in self._each(documents, read):
            yield document, found, digest

    async def extract(self, content: Content | InputError, recipe: Recipe) -> PooledDocument:
        """Return the vector of one document, ahead of the bulk streams.

        Raises:
            InputError: the document cannot be read as requested.
            NotFiniteError: its states are not finite.
            QueueFullError: the queue of unary calls is full.
            DrainingError: the server is shutting down.
        """
        size = size_of(content)
        if size <= _SHORT_TEXT:
            document = self._reader(content, recipe.settings)
        else:
            document = await self._tokenizing.run(
                partial(self._reader, content, recipe.settings), size, interactive=True
            )
        if isinstance(document, InputError):
            raise document
        outcome: asyncio.Future[Pools | Exception] = asyncio.get_running_loop().create_future()

        def done(result: Pools | Exception) -> None:
            # A call that was cancelled a moment ago may not have closed its lane yet.
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

    async def _each(
        self, documents: Sequence[D], read: Callable[[Content | InputError], R]
    ) -> AsyncIterator[tuple[D, R]]:
        """Yield documents with what `read` makes of their contents, on a thread."""
        for some, contents in slices(documents):
            found: list[R] = await self._tokenizing.run(
                partial(list, map(read, contents)), sum(map(size_of, contents))
            )
            for pair in zip(some, found, strict=True):
                yield pair
