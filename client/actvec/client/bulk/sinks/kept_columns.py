"""Documents' columns as columns of Parquet files, each of one type in all files."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from actvec.client.bulk.sinks.sink import Row
from actvec.client.errors import InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.records.columns import Scalar

if TYPE_CHECKING:
    import pyarrow as pa

VECTOR = "vector"
OURS = frozenset({VECTOR, *(field.name for field in fields(Row))}) - {"columns"}

_LARGEST = 1 << 63


def check_names(names: Collection[str], ours: Collection[str] = OURS) -> None:
    """Check that no column has the name of one of ours.

    Raises:
        InvalidArgument: one does.
    """
    if taken := [name for name in names if name in ours]:
        raise InvalidArgument(
            f"the column {taken[0]!r} cannot be kept: Parquet has a column of that name for each"
            f" vector already, as it has {', '.join(sorted(set(ours) - {taken[0]}))}. Rename it in"
            " the input, or write shards, whose index keeps the input's columns apart",
            setting="keep",
        )


class ColumnTypes:
    """The Arrow type of each column, wide enough for all values so far.

    Integers are int64, other numbers float64; a mix of both is float64, and any other mix is
    strings, with numbers written as in JSON, and whole ones without a fraction. A column without a
    value is null.

    Attributes:
        types: The types by name, in the order in which the columns appeared.
    """

    def __init__(self) -> None:
        self._pa = import_extra("pyarrow", "data")
        self.types: dict[str, pa.DataType] = {}

    def add(self, columns: Iterable[Mapping[str, Scalar]]) -> None:
        """Widen the types for the columns of more documents."""
        for one in columns:
            for name, value in one.items():
                self.widen(name, self._type(value))

    def widen(self, name: str, kind: "pa.DataType") -> None:
        """Widen the type of one column for values of another type."""
        pa = self._pa
        known = self.types.setdefault(name, kind)
        if kind in (known, pa.null()):
            return
        if known == pa.null():
            self.types[name] = kind
        elif {known, kind} == {pa.int64(), pa.float64()}:
            self.types[name] = pa.float64()
        else:
            self.types[name] = pa.string()

    def array(self, name: str, values: list[Scalar]) -> "pa.Array":
        """Convert the values of a column, `[rows]`, to its type."""
        pa, kind = self._pa, self.types[name]
        if kind == pa.string():
            values = [
                value if value is None or isinstance(value, str) else _written(value)
                for value in values
            ]
        elif kind == pa.float64():
            values = [None if value is None else float(value) for value in values]
        return pa.array(values, kind)

    def _type(self, value: Scalar) -> "pa.DataType":
        pa = self._pa
        match value:
            case None:
                return pa.null()
            case bool():
                return pa.bool_()
            case int() if -_LARGEST <= value < _LARGEST:
                return pa.int64()
            case float():
                return pa.float64()
            case _:
                return pa.string()


def _written(value: bool | float) -> str:
    """A value as in JSON.

    A column that was float64 before it was strings has lost which of its numbers were integers:
    1 and 1.0 are the same text, so that the texts do not depend on the bounds of the files.
    """
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)
