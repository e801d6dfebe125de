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
    """Every `of`-th document of a source, the `number`-th of them first.

    So all shards of a source together are each of its documents once, and about as long as each
    other, wherever long documents stand.

    Attributes:
        number: From 1.
        of: How many shards there are.

    Raises:
        InvalidArgument: there is no such shard.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InvalidArgument(
                f"there is no shard {self}; write I/N, the I-th of N: 1/4, 2/4, 3/4 and 4/4"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that `I/N` names.

        Raises:
            InvalidArgument: it names none.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise InvalidArgument(
                f"{text!r} is no shard; write I/N, the I-th of N, for example 1/4"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, index: object) -> bool:
        """Whether a document is in it, by its number in the source from 0."""
        return isinstance(index, int) and index % self.of == self.number - 1


class ShardSource(DocumentSource):
    """The documents of one shard, with the numbers, ids and failures that they have in the source.

    What belongs to other shards is passed over unread where the kind of source allows it.
    """

    def __init__(self, source: DocumentSource, shard: Shard) -> None:
        super().__init__(source.path)
        self._source = source
        self._shard = shard

    @property
    def count(self) -> int | None:
        """See `DocumentSource.count`."""
        whole = self._source.count
        return None if whole is None else len(range(self._shard.number - 1, whole, self._shard.of))

    @property
    def size(self) -> int | None:
        """Bytes of the whole source, through which a scan of the shard comes too."""
        return self._source.size

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`."""
        return self._source.scan(_Elsewhere(self._shard, skip))

    def identity(self) -> dict[str, Any] | None:
        """See `DocumentSource.identity`."""
        whole = self._source.identity()
        return None if whole is None else whole | {"shard": str(self._shard)}


class _Elsewhere(Container[int]):
    """The numbers of documents that are skipped, or of another shard."""

    def __init__(self, shard: Shard, skip: Container[int]) -> None:
        self._shard = shard
        self._skip = skip

    def __contains__(self, index: object) -> bool:
        return not self._shard.has(index) or index in self._skip
