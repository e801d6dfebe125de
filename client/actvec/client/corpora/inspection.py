"""What a corpus holds: how many documents, how long they are, which are empty or there twice."""

from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.corpora.acceptance import count_words, text_digest
from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.documents import open_documents
from actvec.client.errors import InvalidArgument
from actvec.client.vectors import Document, Failure
from actvec.client.wire import encode_text

# Documents whose tokens are counted at a time.
_BATCH = 64

# Failures that an inspection shows; all are counted.
_SHOWN_FAILURES = 10

_BINS = 12


@dataclass(frozen=True)
class Extreme:
    """A document that is the longest or the shortest.

    Attributes:
        id: Its id.
        length: Its length, in the unit of the `Lengths`.
    """

    id: str
    length: int


@dataclass(frozen=True)
class Bin:
    """Documents of like length.

    Attributes:
        low: From this length on.
        high: Up to this length, which is included.
        documents: How many.
    """

    low: int
    high: int
    documents: int


@dataclass(frozen=True)
class Lengths:
    """How long documents are, those left out that are empty.

    Attributes:
        total: Of all together.
        mean: Of one on average.
        median: Of the middle one.
        shortest: The shortest document; the first of several.
        longest: The longest document; the first of several.
        histogram: Bins of one width from the shortest on, the last one wider where a few documents
            are much longer than the others.
    """

    total: int
    mean: float
    median: float
    shortest: Extreme
    longest: Extreme
    histogram: tuple[Bin, ...]


@dataclass(frozen=True)
class Inspection:
    """What a corpus holds.

    Attributes:
        documents: Documents that can be read.
        unreadable: Documents that cannot, or whose id or text has no UTF-8, so that no server
            takes them.
        failures: The first of those, with the reason.
        empty: Documents without a word.
        duplicates: Documents that equal an earlier one to the byte, empty ones aside.
        bytes: Lengths in bytes of UTF-8; None where all documents are empty.
        words: Lengths in words: what stands between white space.
        tokens: Lengths in tokens; None without a tokenizer.
        tokenizer: Where the tokenizer was loaded from.
        prepend_bos: Whether a BOS token is counted with each document.
        context: Tokens that fit the model's context, BOS included.
        over_context: Documents of more tokens than that.
    """

    documents: int
    unreadable: int
    failures: tuple[Failure, ...]
    empty: int
    duplicates: int
    bytes: Lengths | None
    words: Lengths | None
    tokens: Lengths | None = None
    tokenizer: str | None = None
    prepend_bos: bool | None = None
    context: int | None = None
    over_context: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The inspection as JSON takes it."""
        return asdict(self)


def inspect_corpus(
    path: str | Path,
    *,
    tokenizer: str | TokenCounter | None = None,
    context: int | None = None,
) -> Inspection:
    """Read a corpus and tell what it holds; see `inspect_documents`.

    Args:
        path: What `open_documents` takes: a folder of `.txt`, or a file of documents.
        tokenizer: As there, or what `TokenCounter` loads one from.
        context: As there.

    Raises:
        UnsupportedInput: there is no corpus, or no tokenizer of that name.
        MissingExtra: a package is not installed.
        ValueError: a context without a tokenizer.
    """
    source = open_documents(path)
    if isinstance(tokenizer, str):
        tokenizer = TokenCounter(tokenizer)
    return inspect_documents(source, tokenizer=tokenizer, context=context)


def inspect_documents(
    documents: Iterable[Document | Failure],
    *,
    tokenizer: TokenCounter | None = None,
    context: int | None = None,
) -> Inspection:
    """Tell what documents are, in one pass; about 150 bytes of each are remembered.

    Args:
        documents: The documents, and failures for those that cannot be read.
        tokenizer: Counts tokens; None to count words and bytes only.
        context: Tokens that fit the model's context; counts the documents that exceed it.

    Raises:
        ValueError: a context without a tokenizer.
    """
    if context is not None and tokenizer is None:
        raise ValueError("a context is a number of tokens, which only a tokenizer can count")
    scan = _Scan(tokenizer)
    for index, item in enumerate(documents):
        scan.add(item, index)
    scan.count_tokens()
    tokens = scan.tokens.lengths() if tokenizer else None
    return Inspection(
        documents=scan.documents,
        unreadable=scan.unreadable,
        failures=tuple(scan.failures),
        empty=scan.empty,
        duplicates=scan.documents - scan.empty - len(scan.digests),
        bytes=scan.bytes.lengths(),
        words=scan.words.lengths(),
        tokens=tokens,
        tokenizer=tokenizer.name if tokenizer else None,
        prepend_bos=tokenizer.prepend_bos if tokenizer else None,
        context=context,
        over_context=None if context is None else scan.tokens.above(context),
    )


class _Measured:
    """Lengths of documents in one unit, 8 bytes each."""

    def __init__(self) -> None:
        self._values = array("q")
        self._shortest: Extreme | None = None
        self._longest: Extreme | None = None

    def add(self, document_id: str, length: int) -> None:
        self._values.append(length)
        if self._shortest is None or length < self._shortest.length:
            self._shortest = Extreme(document_id, length)
        if self._longest is None or length > self._longest.length:
            self._longest = Extreme(document_id, length)

    def above(self, bound: int) -> int:
        return int((np.asarray(self._values) > bound).sum())

    def lengths(self) -> Lengths | None:
        if self._shortest is None or self._longest is None:
            return None
        values = np.asarray(self._values)
        return Lengths(
            total=int(values.sum()),
            mean=float(values.mean()),
            median=float(np.median(values)),
            shortest=self._shortest,
            longest=self._longest,
            histogram=_histogram(values),
        )


class _Scan:
    """What is known after some documents."""

    def __init__(self, tokenizer: TokenCounter | None) -> None:
        self.documents = self.unreadable = self.empty = 0
        self.failures: list[Failure] = []
        self.digests: set[bytes] = set()
        self.bytes, self.words, self.tokens = _Measured(), _Measured(), _Measured()
        self._tokenizer = tokenizer
        self._batch: list[Document] = []

    def add(self, item: Document | Failure, index: int) -> None:
        if isinstance(item, Failure):
            self._add_failure(replace(item, index=index))
            return
        try:
            text = encode_text(item)
        except InvalidArgument as error:
            self._add_failure(Failure.of(error, item.id, index))
            return
        self.documents += 1
        words = count_words(item.text)
        if not words:
            self.empty += 1
            return
        self.digests.add(text_digest(item.text))
        self.words.add(item.id, words)
        self.bytes.add(item.id, len(text))
        if self._tokenizer is not None:
            self._batch.append(item)
            if len(self._batch) == _BATCH:
                self.count_tokens()

    def _add_failure(self, failure: Failure) -> None:
        self.unreadable += 1
        if len(self.failures) < _SHOWN_FAILURES:
            self.failures.append(failure)

    def count_tokens(self) -> None:
        """Count those of the documents that wait for it."""
        if self._tokenizer is not None and self._batch:
            counts = self._tokenizer.count([document.text for document in self._batch])
            for document, count in zip(self._batch, counts, strict=True):
                self.tokens.add(document.id, count)
        self._batch.clear()


def _histogram(values: NDArray[np.int64]) -> tuple[Bin, ...]:
    """At most 12 bins of a round width; the longest 2% may lie beyond and widen the last one."""
    longest = int(values.max())
    span = int(np.percentile(values, 98)) - int(values.min()) + 1
    width = _round_width(span)
    first = int(values.min()) // width * width
    edges = list(range(first, first + (_BINS + 1) * width, width))
    # The last edge that is needed, unless the longest documents are further away than the bins go.
    edges = [edge for edge in edges if edge <= longest][:_BINS]
    counts = np.histogram(values, bins=np.array([*edges, longest + 1]))[0]
    ends = [edge - 1 for edge in edges[1:]] + [max(edges[-1] + width - 1, longest)]
    return tuple(map(Bin, edges, ends, counts.tolist()))


def _round_width(span: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... of which `_BINS - 1` cover a span."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * (_BINS - 1) >= span:
                return factor * power
        power *= 10
