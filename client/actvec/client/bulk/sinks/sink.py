"""The interface of sinks, and what they have in common: the entry beside each vector, the dtype."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import FailedPrecondition, OutOfRange
from actvec.client.records.columns import Scalar, as_columns
from actvec.client.records.vectors import Vector

Dtype = Literal["float16", "float32"]

FILE_DTYPE: Dtype = "float16"


class DuplicateNameError(FailedPrecondition):
    """Another document already has this file: its id is the same."""


@dataclass(frozen=True)
class Row:
    """One document's entry beside its vector.

    Attributes:
        index: The document's number in its source or stream, from 0.
        id: Its id.
        tokens: Tokens of the whole document, BOS included.
        tokens_used: Number of pooled tokens.
        truncated: Whether the document was cut to the context.
        smallest_count: Smallest number of documents behind a used position of the corpus mean; 0
            for a raw vector.
        text_sha256: SHA-256 of the text's UTF-8, or the digest of another document, in hexadecimal.
        source: Kind of the document's content: `text`, `messages` or `token_ids`.
        bos: Whether its first token is BOS; None if unknown.
        columns: The document's columns.
    """

    index: int
    id: str
    tokens: int
    tokens_used: int
    truncated: bool
    smallest_count: int
    text_sha256: str
    source: str = "text"
    bos: bool | None = None
    columns: Mapping[str, Scalar] = field(default_factory=dict, hash=False)

    @property
    def shortened(self) -> bool:
        """Whether it is longer than its corpus mean, so that only its last tokens were pooled.

        False for a text that was cut to the context: there this is unknown.
        """
        centered = self.smallest_count > 0
        return centered and not self.truncated and self.tokens_used < self.tokens

    @classmethod
    def of(cls, vector: Vector) -> "Row":
        """The entry of a vector."""
        return cls(**{one.name: getattr(vector, one.name) for one in fields(cls)})

    @classmethod
    def parse(cls, record: dict[str, Any]) -> "Row":
        """Parse the entry in a record, which may have further fields.

        Fields that an earlier version did not write get their defaults.

        Raises:
            ValueError: a field is missing, or has another type.
            TypeError: the columns are invalid.
        """
        values: dict[str, Any] = {"columns": as_columns(record.get("columns", {}))}
        for one in fields(cls):
            if one.name in values:
                continue
            default = None if one.default is MISSING else one.default
            values[one.name] = value = record.get(one.name, default)
            if type(value) not in (get_args(one.type) or (one.type,)):
                raise ValueError(f"`{one.name}` is {value!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON values; without `columns` if the document has none."""
        record = asdict(self)
        if not self.columns:
            del record["columns"]
        return record


class Sink(Protocol):
    """A folder that vectors are written to; a context manager that commits at its end.

    Attributes:
        folder: The folder of the files.
    """

    folder: Path

    @property
    def committed(self) -> int:
        """Number of durable vectors written since this was opened."""

    def rows(self) -> Iterator[Row]:
        """Yield the entries of durable vectors in the folder, in no particular order.

        Raises:
            DataLoss: a file is damaged or missing; the message names it and says what to do.
        """

    def write(self, vector: Vector) -> None:
        """Add a vector, which the next `commit` makes durable.

        Raises:
            DuplicateNameError: it would replace another one.
            OutOfRange: a number is not finite in the dtype of the files.
            FailedPrecondition: its stamp differs from that of earlier vectors.
            ResourceExhausted: there is no memory for a file of so many rows.
            OSError: the disk is full, or similar.
        """

    def commit(self) -> None:
        """Make all written vectors durable.

        Raises:
            OSError: the disk is full, or similar.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.commit()


def to_dtype(values: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    """Convert the numbers `[L * K * D]` to the dtype of files.

    Raises:
        OutOfRange: one of them is not finite in it.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    finite = np.isfinite(rounded)
    if not finite.all():
        worst = float(values[~finite][0])
        raise OutOfRange(
            f"the vector holds {worst:g}, and {dtype} files hold numbers up to"
            f" {np.finfo(dtype).max:.6g}; take the float32 numbers, or center"
        )
    return rounded
