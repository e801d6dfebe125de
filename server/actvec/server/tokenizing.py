"""Whose texts are tokenized next: callers take turns, and no text waits for a much larger one.

A text of megabytes takes seconds, and nothing interrupts it. Texts of about a size share a thread,
so that what waits for a large text is large itself. On each thread callers take turns, a slice of
some documents at a time, and so do the calls of a caller: a call has one slice in the line.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from actvec.server.calls.budget import purse
from actvec.server.turns import Turns
from actvec.v1.vectors_pb2 import Document

R = TypeVar("R")

# Characters of the texts that share a thread, at most, but for the last.
_SIZES = (1 << 15, 1 << 18)

# A slice: so many documents, and characters of more than one.
_SLICE_DOCUMENTS = 64
_SLICE_CHARACTERS = _SIZES[0]


def slices(documents: Sequence[Document]) -> Iterator[tuple[list[Document], list[str]]]:
    """Documents of a message and their texts, as many as are tokenized at a time."""
    some: list[Document] = []
    texts: list[str] = []
    characters = 0
    for document in documents:
        text = document.text
        full = len(some) == _SLICE_DOCUMENTS or characters + len(text) > _SLICE_CHARACTERS
        if some and full:
            yield some, texts
            some, texts, characters = [], [], 0
        some.append(document)
        texts.append(text)
        characters += len(text)
    if some:
        yield some, texts


class Tokenizing:
    """The threads that tokenize. Unary calls have one of their own, but for large texts."""

    def __init__(self) -> None:
        self._unary: Turns = Turns("actvec-tokenizer-unary")
        self._bulk = [
            Turns(f"actvec-tokenizer-{size}", aside=size > 0) for size in range(len(_SIZES) + 1)
        ]

    async def run(
        self, function: Callable[[], R], characters: int, *, interactive: bool = False
    ) -> R:
        """What a function that tokenizes returns.

        Args:
            function: Called on a thread, unless the call is gone by then.
            characters: How large its texts are.
            interactive: Whether it is for a unary call.
        """
        size = sum(characters > most for most in _SIZES)
        turns = self._unary if interactive and not size else self._bulk[size]
        return await turns.run(function, purse().caller)

    def close(self) -> None:
        """End the threads, without waiting for what they do: nobody wants it any more."""
        for turns in (self._unary, *self._bulk):
            turns.close()
