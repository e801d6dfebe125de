"""The order of tokenizing: callers take turns, and no text waits for a much larger one.

A text of megabytes takes seconds, and nothing interrupts it. Texts of similar size share a thread,
so only large texts wait for a large text. On each thread callers take turns, one slice of documents
at a time, and so do the calls of one caller: a call has one slice in line.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from actvec.server.budget import purse
from actvec.server.errors import InputError
from actvec.server.extraction.contents import Content
from actvec.server.extraction.turns import Turns


class HasContent(Protocol):
    """A document of a message, whatever the message is."""

    def content(self) -> Content | InputError:
        """The content to tokenize, or the reason why there is none."""


D = TypeVar("D", bound=HasContent)
R = TypeVar("R")

# Upper limits on the characters of texts that share a thread; the last thread has none.
_SIZES = (1 << 15, 1 << 18)

# Limits of a slice: documents, and characters unless it is a single document.
_SLICE_DOCUMENTS = 64
_SLICE_CHARACTERS = _SIZES[0]


def slices(documents: Sequence[D]) -> Iterator[tuple[list[D], list[Content | InputError]]]:
    """Split the documents of a message, with their contents, into parts to tokenize at a time."""
    some: list[D] = []
    contents: list[Content | InputError] = []
    characters = 0
    for document in documents:
        content = document.content()
        size = size_of(content)
        full = len(some) == _SLICE_DOCUMENTS or characters + size > _SLICE_CHARACTERS
        if some and full:
            yield some, contents
            some, contents, characters = [], [], 0
        some.append(document)
        contents.append(content)
        characters += size
    if some:
        yield some, contents


def size_of(content: Content | InputError) -> int:
    """Estimate the characters to tokenize."""
    return 0 if isinstance(content, InputError) else content.characters()


class Tokenizing:
    """The tokenizing threads. Unary calls have their own, except for large texts."""

    def __init__(self) -> None:
        self._unary: Turns = Turns("actvec-tokenizer-unary")
        self._bulk = [
            Turns(f"actvec-tokenizer-{size}", aside=size > 0) for size in range(len(_SIZES) + 1)
        ]

    async def run(
        self, function: Callable[[], R], characters: int, *, interactive: bool = False
    ) -> R:
        """Run a function that tokenizes, and return its result.

        Args:
            function: Called on a thread, unless the call has ended by then.
            characters: The size of its texts.
            interactive: Whether it serves a unary call.
        """
        size = sum(characters > most for most in _SIZES)
        turns = self._unary if interactive and not size else self._bulk[size]
        return await turns.run(function, purse().caller)

    def close(self) -> None:
        """End the threads without waiting: nobody needs their results any more."""
        for turns in (self._unary, *self._bulk):
            turns.close()
