"""Inspects a corpus: number and lengths of documents, empty ones, duplicates."""

import itertools
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.corpora.acceptance import count_words
from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.documents import Columns, open_documents
from actvec.client.errors import InvalidArgument
from actvec.client.messages.documents import check_utf8
from actvec.client.records.vectors import Document, Failure

# Number of documents to tokenize at a time.
_BATCH = 64

# Number of failures to keep; all are counted.
_SHOWN_FAILURES = 10

_BINS = 12


@dataclass(frozen=True)
class Extreme:
    """The longest or shortest document.

    Attributes:
        id: Its id.
        length: Its length, in the unit of the `Lengths`.
    """

    id: str
    length: int


@dataclass(frozen=True)
class Bin:
    """Documents of similar length.

    Attributes:
        low: Shortest length.
        high: Longest length, inclusive.
        documents: Number of documents.
    """

    low: int
    high: int
    documents: int


@dataclass(frozen=True)
class Lengths:
    """Lengths of documents, in one unit; empty ones do not count.

    Attributes:
        total: Sum.
        mean: Mean.
        median: Median.
        shortest: The shortest document; the first of several.
        longest: The longest document; the first of several.
        histogram: Bins of equal width from the shortest up; the last is wider if a few documents
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
    """A description of a corpus.

    Attributes:
        documents: Number of readable documents.
        unreadable: Documents that cannot be read, or whose id or text is not valid UTF-8.
        failures: The first of those, with the reason.
        empty: Documents without a word.
        duplicates: Documents equal, byte for byte, to an earlier one, empty ones aside.
        repeated_ids: Documents with the id of an earlier one.
        bytes: Lengths in bytes of UTF-8; None if all documents are empty.
        words: Lengths in words, separated by white space.
        tokens: Lengths in tokens; None without a tokenizer.
        tokenizer: The name or path of the tokenizer.
        prepend_bos: Whether each document counts with a BOS token.
        context: The model's context in tokens, BOS included.
        over_context: Documents with more tokens than that.
    """

    documents: int
    unreadable: int
    failures: tuple[Failure, ...]
    empty: int
    duplicates: int
    repeated_ids: int
    bytes: Lengths | None
    words: Lengths | None
    tokens: Lengths | None = None
    tokenizer: str | None = None
    prepend_bos: bool | None = None
    context: int | None = None
    over_context: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The inspection as JSON values."""
        return asdict(self) | {"failures": [failure.to_dict() for failure in self.failures]}


def inspect_corpus(
    path: str | Path,
    *,
    tokenizer: str | TokenCounter | None = None,
    context: int | None = None,
    columns: Columns | None = None,
) -> Inspection:
    """Read a corpus and describe it; see `inspect_documents`.

    Args:
        path: A path for `open_documents`: a folder of `.txt`, or a file of documents.
        tokenizer: As for `inspect_documents`, or a name for `TokenCounter`.
        context: As for `inspect_documents`.
        columns: The fields of documents and ids; None for the defaults.

    Raises:
        UnsupportedInput: the corpus, its fields or the tokenizer do not exist.
        MissingExtra: a package is not installed.
        ValueError: `context` without a tokenizer.
    """
    source = open_documents(path, columns=columns)
    if isinstance(tokenizer, str):
        tokenizer = TokenCounter(tokenizer)
    return inspect_documents(source, tokenizer=tokenizer, context=context)


def inspect_documents(
    documents: Iterable[Document | Failure],
    *,
    tokenizer: TokenCounter | None = None,
    context: int | None = None,
) -> Inspection:
    """Describe documents in one pass; keeps about 230 bytes per document.

    Args:
        documents: The documents, and failures for unreadable ones.
        tokenizer: Counts tokens; None to count words and bytes only.
        context: The model's context in tokens; counts the documents beyond it.

    Raises:
        ValueError: `context` without a tokenizer.
    """
    if context is not None and tokenizer is None:
        raise ValueError("a context is a number of tokens; give a tokenizer to count them")
    failures: list[Failure] = []
    digests: set[bytes] = set()
    ids: set[int] = set()
    sizes, words, tokens = _Measured(), _Measured(), _Measured()
    readable = unreadable = 0
    items = enumerate(documents)
    while batch := list(itertools.islice(items, _BATCH)):
        measured: list[Document] = []
        for index, item in batch:
            size = _size(item, index)
            if isinstance(item, Failure) or isinstance(size, Failure):
                unreadable += 1
                if isinstance(size, Failure) and len(failures) < _SHOWN_FAILURES:
                    failures.append(size)
                continue
            readable += 1
            ids.add(hash(item.id))
            count = count_words(item.content)
            if count or item.token_ids is not None:
                digests.add(item.digest())
                words.add(item.id, count)
                sizes.add(item.id, size)
                measured.append(item)
        if tokenizer is not None:
            for one, count in zip(measured, tokenizer.count_documents(measured), strict=True):
                tokens.add(one.id, count)
    return Inspection(
        documents=readable,
        unreadable=unreadable,
        failures=tuple(failures),
        empty=readable - len(words.values),
        duplicates=len(words.values) - len(digests),
        repeated_ids=readable - len(ids),
        bytes=sizes.lengths(),
        words=words.lengths(),
        tokens=tokens.lengths(),
        tokenizer=tokenizer.name if tokenizer else None,
        prepend_bos=tokenizer.prepend_bos if tokenizer else None,
        context=context,
        over_context=None if context is None else int((np.asarray(tokens.values) > context).sum()),
    )


def _size(item: Document | Failure, index: int) -> int | Failure:
    """Return the bytes of a document's text, or the failure of an unreadable one."""
    if isinstance(item, Failure):
        return replace(item, index=index)
    try:
        return check_utf8(item)
    except InvalidArgument as error:
        return Failure.of(error, item.id, index)


class _Measured:
    """Lengths of documents in one unit, 8 bytes each."""

    def __init__(self) -> None:
        self.values = array("q")
        self._shortest = self._longest = Extreme("", 0)

    def add(self, document_id: str, length: int) -> None:
        if not self.values or length < self._shortest.length:
            self._shortest = Extreme(document_id, length)
        if length > self._longest.length:
            self._longest = Extreme(document_id, length)
        self.values.append(length)

    def lengths(self) -> Lengths | None:
        if not self.values:
            return None
        values = np.asarray(self.values)
        return Lengths(
            total=int(values.sum()),
            mean=float(values.mean()),
            median=float(np.median(values)),
            shortest=self._shortest,
            longest=self._longest,
            histogram=_histogram(values),
        )


def _histogram(values: NDArray[np.int64]) -> tuple[Bin, ...]:
    """At most 12 bins of a round width; the longest 2% may lie beyond and widen the last one."""
    shortest, longest = int(values.min()), int(values.max())
    span = int(np.percentile(values, 98)) - shortest + 1
    # The smallest of 1, 2, 5, 10, 20, 50, ... that is wide enough.
    rounds = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    width = next(width for width in rounds if width * (_BINS - 1) >= span)
    edges = list(range(shortest // width * width, longest + 1, width)[:_BINS])
    counts = np.histogram(values, bins=[*edges, longest + 1])[0]
    ends = [edge - 1 for edge in edges[1:]] + [max(edges[-1] + width - 1, longest)]
    return tuple(map(Bin, edges, ends, counts.tolist()))
