"""Vectors piece by piece, whether they are on disk or in an array."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import DataLoss
from actvec.client.stored.vectors import StoredVectors

Vectors = StoredVectors | NDArray[np.floating]
"""What `load` gives, or an array `[N, L, K, D]`."""

Number = TypeVar("Number", bound=np.floating)

Block = tuple[slice, NDArray[np.float32]]


def blocks_of(vectors: Vectors) -> Iterator[Block]:
    """Which rows, and their numbers `[n, L, K, D]` float32, about 64 MB at a time.

    Raises:
        DataLoss: a number is not finite.
    """
    if isinstance(vectors, StoredVectors):
        for rows, block in vectors.blocks():
            yield rows, finite(block, rows.start, vectors.ids)
        return
    step = max(1, (1 << 24) // int(np.prod(vectors.shape[1:])))
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step].astype(np.float32, copy=False)
        yield slice(start, start + len(block)), finite(block, start)


def row_blocks_of(vectors: StoredVectors, layer: int, pool: int) -> Iterator[NDArray[np.float32]]:
    """The vectors `[n, D]` of one layer and pool, about 64 MB at a time.

    Raises:
        DataLoss: a number is not finite.
    """
    first = 0
    for block in vectors.row_blocks(layer, pool):
        yield finite(block, first, vectors.ids)
        first += len(block)


def rows_of(vectors: StoredVectors, layer: int, pool: int) -> NDArray[np.float32]:
    """The same, `[N, D]`."""
    return np.concatenate(list(row_blocks_of(vectors, layer, pool)))


def finite(block: NDArray[Number], first: int = 0, ids: Sequence[str] = ()) -> NDArray[Number]:
    """The vectors of a block, `[n, ...]`, if no number is NaN or infinite.

    A server sends no such vector, and one of them would spoil every figure.

    Args:
        block: The vectors.
        first: The row of the first.
        ids: Of all rows; empty for vectors without ids.

    Raises:
        DataLoss: a number is not finite; the message names the document.
    """
    spoiled = ~np.isfinite(block).reshape(len(block), -1).all(axis=1)
    if spoiled.any():
        row = first + int(spoiled.argmax())
        name = f"document {ids[row]!r}" if ids else f"row {row}"
        raise DataLoss(
            f"the vector of {name} has numbers that are not finite: its file is damaged, or it was"
            " not made by a server; make it again, or drop it"
        )
    return block


def shape_of(vectors: Vectors) -> tuple[int, int, int]:
    """L, K and D."""
    layers, pools, width = vectors.shape[-3:]
    return int(layers), int(pools), int(width)
