"""A part of a source, for machines that share the work."""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any, Self

from actvec.client.documents.source import DocumentSource, Located
from actvec.client.errors import InvalidArgument

_FORM = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Shard:
    """Every `of`-th document of a source, starting with the `number`-th.

    So all shards together hold each document once, and take about equal work, wherever in the
    source long documents are.

    Attributes:
        number: From 1.
        of: Number of shards.

    Raises:
        InvalidArgument: there is no such shard.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InvalidArgument(
                f"shard {self} does not exist; write I/N, the I-th of N: 1/4, 2/4, 3/4 and 4/4"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `I/N`.

        Raises:
            InvalidArgument: it is not a shard.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise InvalidArgument(
                f"{text!r} is not a shard; write I/N, the I-th of N, for example 1/4"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, index: object) -> bool:
        """Whether it contains a document, by its number in the source from 0."""
        return isinstance(index, int) and index % self.of == self.number - 1


class ShardSource(DocumentSource):
    """The documents of one shard, with their numbers, ids and failures in the source.

    Skips documents of other shards unread if the kind of source allows it.
    """

    def __init__(self, source: DocumentSource, shard: Shard) -> None:
        super().__init__(source.path, source.kept)
        self._source = source
        self._shard = shard

    @property
    def count(self) -> int | None:
        """See `DocumentSource.count`."""
        whole = self._source.count
        return None if whole is None else len(range(self._shard.number - 1, whole, self._shard.of))

    @property
    def size(self) -> int | None:
        """Bytes of the whole source: a scan of the shard reads them all."""
        return self._source.size

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`."""
        return self._source.scan(_Elsewhere(self._shard, skip))

    def identity(self) -> dict[str, Any] | None:
        """See `DocumentSource.identity`."""
        whole = self._source.identity()
        return None if whole is None else whole | {"shard": str(self._shard)}


class _Elsewhere(Container[int]):
    """The numbers of documents that are skipped, or belong to other shards."""

    def __init__(self, shard: Shard, skip: Container[int]) -> None:
        self._shard = shard
        self._skip = skip

    def __contains__(self, index: object) -> bool:
        return not self._shard.has(index) or index in self._skip
