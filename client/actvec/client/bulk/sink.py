"""Where vectors go: what every sink can do, and what it tells of a vector beside its numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from actvec.client.vectors import Vector


@dataclass(frozen=True)
class Row:
    """One document's entry beside its vector.

    Attributes:
        index: The document's number in its source or stream, from 0.
        id: Its id.
        tokens: Tokens of the whole text, BOS included.
        tokens_used: Tokens that were pooled.
        truncated: Whether the text was cut to the context.
        smallest_count: Smallest number of documents behind a used position of the corpus mean; 0
            for a raw vector.
        text_sha256: SHA-256 of the text's UTF-8, in hexadecimal.
    """

    index: int
    id: str
    tokens: int
    tokens_used: int
    truncated: bool
    smallest_count: int
    text_sha256: str

    @property
    def shortened(self) -> bool:
        """Whether it is longer than its corpus mean, so that only its last tokens were pooled.

        Of a text that was cut to the context this is not known, and False.
        """
        centred = self.smallest_count > 0
        return centred and not self.truncated and self.tokens_used < self.tokens

    @classmethod
    def of(cls, vector: Vector) -> "Row":
        """The entry of a vector."""
        return cls(**{field.name: getattr(vector, field.name) for field in fields(cls)})

    @classmethod
    def parse(cls, record: dict[str, Any]) -> "Row":
        """The entry in a record that may hold more.

        Raises:
            ValueError: a field is missing, or of another type.
        """
        values: dict[str, Any] = {field.name: record.get(field.name) for field in fields(cls)}
        for field in fields(cls):
            if type(values[field.name]) is not field.type:
                raise ValueError(f"`{field.name}` is {values[field.name]!r}")
        return cls(**values)


class Sink(Protocol):
    """A folder that vectors are written to; a context manager that commits at its end.

    Attributes:
        folder: Where the files are.
    """

    folder: Path

    def rows(self) -> Iterator[Row]:
        """What is in the folder already and lasts, in no particular order.

        Raises:
            DataLoss: a file is damaged or missing.
        """

    def write(self, vector: Vector) -> None:
        """Add a vector, which lasts from the next `commit` on.

        Raises:
            DuplicateNameError: it would take the place of another one.
            OutOfRange: a number is not finite in the dtype of the files.
            FailedPrecondition: its stamp is another than that of the vectors before it.
            ResourceExhausted: there is not the memory for a file of so many rows.
            OSError: the disk is full, or the like.
        """

    def commit(self) -> None:
        """Make what was written last, whatever happens to the process or the machine.

        Raises:
            OSError: the disk is full, or the like.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What is not the same in two records, for people; empty where nothing is."""
    names = sorted(there.keys() | here.keys())
    return "; ".join(
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in names
        if there.get(name) != here.get(name)
    )
