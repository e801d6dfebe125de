"""Vectors as tables of Arrow, from which other tools take them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.records.stamp import Stamp


def columns_table(ids: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> Any:
    """A `pyarrow.Table` of `id` and the columns; a column of several types is strings.

    Raises:
        InvalidArgument: a column has the name of the vectors' own, or is an `id` of other values.
    """
    pa = import_extra("pyarrow", "data")
    taken = ["vector"] if "vector" in columns else []
    if [str(one) for one in columns.get("id", ids)] != list(ids):
        taken.append("id")
    if taken:
        raise InvalidArgument(
            f"the column {taken[0]!r} of the corpus and the vectors' own column have one name;"
            " rename it in the input, or take the arrays: `array`, `ids` and `columns`",
            setting="keep",
        )
    values = {"id": pa.array(ids, pa.string())}
    values |= {name: _column(one.tolist()) for name, one in columns.items() if name != "id"}
    return pa.table(values)


def _column(values: list[Any]) -> Any:
    """A `pyarrow.Array`; values of several types are strings, those that are none as in JSON."""
    pa = import_extra("pyarrow", "data")
    kinds = {type(one) for one in values if one is not None}
    try:
        # Arrow takes a truth value among floats for a number.
        return pa.array(values, pa.string() if len(kinds) > 1 and bool in kinds else None)
    except (pa.ArrowException, OverflowError):
        texts = [one if one is None or isinstance(one, str) else json.dumps(one) for one in values]
        return pa.array(texts, pa.string())


def with_vectors(table: Any, stamp: Stamp, blocks: Iterable[NDArray[np.float32]]) -> Any:
    """A table with its column `vector`, of `[n, L, K, D]` each, and the stamp in its metadata."""
    pa = import_extra("pyarrow", "data")
    numbers, shape = [], ()
    for block in blocks:
        shape = block.shape[1:]
        flat = pa.array(block.reshape(-1))
        numbers.append(pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape))))
    return table.append_column("vector", pa.chunked_array(numbers)).replace_schema_metadata(
        {"actvec.stamp": json.dumps(stamp.to_dict()), "actvec.shape": json.dumps(shape)}
    )
