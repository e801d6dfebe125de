"""Checks vectors against the identity of centering: raw minus centered is the pooled mean."""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actvec.client.analysis.csv_cells import csv_line, read_label
from actvec.client.analysis.csv_tables import read_tables
from actvec.client.errors import InvalidArgument
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Vector
from actvec.pooling import (
    PoolError,
    PoolIdentity,
    Pools,
    PoolTokens,
    check_identity,
    parse_pool,
)

COLUMNS = ("sample", "doc_len", "chunk", "cosine", "l2_diff", "||diff||", "||pred||")


@dataclass(frozen=True)
class DocumentIdentity:
    """How well the identity holds for one document.

    Attributes:
        id: The document's id.
        tokens: Tokens that were pooled.
        pools: For each layer and pool that can be checked, in the vector's order.
        unchecked: The pools that cannot: those of spans, whose tokens the server alone knows, and
            those that are not known here.
    """

    id: str
    tokens: int
    pools: tuple[PoolIdentity, ...]
    unchecked: tuple[str, ...] = ()

    @property
    def relative_error(self) -> float:
        """The worst pool's error, as a fraction of what was predicted; NaN if one is NaN."""
        return float(np.max([pool.relative_error for pool in self.pools]))


def holds(documents: Collection[DocumentIdentity], tolerance: float) -> bool:
    """Whether the identity holds: of one document or more, and of each within the tolerance."""
    # Each, not the worst: NaN is neither greater than a tolerance nor within it.
    return bool(documents) and all(one.relative_error <= tolerance for one in documents)


def worst_error(documents: Collection[DocumentIdentity]) -> float | None:
    """The largest `relative_error`, NaN if one is NaN; None if there are no documents."""
    if not documents:
        return None
    return float(np.max([one.relative_error for one in documents]))


def verify_vectors(raw: Vector, centered: Vector, mean: NDArray[np.float32]) -> DocumentIdentity:
    """Check that two vectors of one document differ by the pooled mean.

    Args:
        raw: The raw vector.
        centered: The centered one.
        mean: As `MeanFile.mean_of` the stamp gives it: `[N, D]`, or `[L, N, D]` of separate layers.

    A document longer than the mean is centered by its last N tokens; its raw vector is of all, and
    the identity cannot check it.

    Raises:
        InvalidArgument: the vectors are not of the same document, layers, pools and tokens; or
            none of their pools can be checked.
    """
    if raw.tokens_used != centered.tokens_used:
        raise InvalidArgument(
            f"document {raw.id!a} has {raw.tokens_used} tokens, but the mean has "
            f"only {mean.shape[-2]} positions, so its centered vector covers "
            f"{centered.tokens_used}; only those can be compared"
        )
    if (raw.text_sha256, *_target(raw.stamp)) != (centered.text_sha256, *_target(centered.stamp)):
        raise InvalidArgument(
            f"the vectors of {raw.id!a} are of different texts, layers, hooks or pools"
        )
    names = [pool.name for pool in raw.stamp.pools]
    kept = [at for at, name in enumerate(names) if can_predict(name)]
    unchecked = tuple(name for name in names if not can_predict(name))
    if not kept:
        raise InvalidArgument(
            f"{', '.join(unchecked)} cannot be checked: the server alone knows the weights of a"
            " span, or of a pool that is not registered here; ask for other pools as well"
        )
    bos = raw.stamp.prepend_bos if raw.bos is None else raw.bos
    found = check_identity(
        [names[at] for at in kept],
        raw.array[:, kept].reshape(-1),
        centered.array[:, kept].reshape(-1),
        mean,
        PoolTokens(centered.tokens_used, bos=bos),
    )
    rows = np.reshape(raw.stamp.row_names, raw.stamp.shape)[:, kept].ravel()
    pools = tuple(replace(one, pool=str(row)) for one, row in zip(found, rows, strict=True))
    return DocumentIdentity(raw.id, centered.tokens_used, pools, unchecked)


def can_predict(pool: str) -> bool:
    """Whether a pool's weights follow from the number of a document's tokens and from BOS."""
    try:
        return not parse_pool(pool).spans
    except PoolError:
        return False


def _target(stamp: Stamp) -> tuple[object, ...]:
    return stamp.layers, stamp.separate_layers, stamp.hook, stamp.pools


def verify_columns(
    pools: Pools, raw: Path, centered: Path, mean: NDArray[np.float32], lengths: Mapping[str, int]
) -> Iterator[DocumentIdentity]:
    """Check two CSV files, as `actvec csv` writes them, against a mean `[N, D]`.

    Args:
        pools: The name of a preset, or the pools of the vectors.
        raw: Columns of raw vectors, each below its document's label.
        centered: The same, centered.
        mean: By distance from the end.
        lengths: Tokens of each document.

    Raises:
        InvalidArgument: a file is not of that form, or they do not fit together.
    """
    raw_table, centered_table = read_tables(raw, centered)
    pairs = zip(raw_table.labels, raw_table.values, centered_table.values, strict=True)
    for label, raw_vector, centered_vector in pairs:
        if label not in lengths:
            raise InvalidArgument(f"{label!a} has no line in the table of lengths")
        try:
            found = check_identity(pools, raw_vector, centered_vector, mean, lengths[label])
        except ValueError as error:
            raise InvalidArgument(f"{label!a}: {error}") from error
        yield DocumentIdentity(label, lengths[label], tuple(found))


def read_lengths(path: Path) -> dict[str, int]:
    """Tokens by label, from a CSV file whose lines are `label,tokens`; a header is skipped.

    Raises:
        InvalidArgument: it is not of that form.
        OSError: it cannot be read.
    """
    lengths: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidArgument(f"{path} is not a table of lengths: {error}") from error
    for number, row in enumerate(rows, start=1):
        if len(row) == 2 and row[1].strip().isdecimal():
            lengths[read_label(row[0])] = int(row[1])
        elif row and number > 1:
            raise InvalidArgument(f"{path}, line {number}: is not label,tokens, such as doc-7,128")
    return lengths


def to_csv(documents: Iterable[DocumentIdentity]) -> bytes:
    """The table as CSV: one row for each document and pool, under `COLUMNS`."""
    lines = [
        csv_line(
            document.id,
            document.tokens,
            pool.pool,
            f"{pool.cosine:.9f}",
            f"{pool.error:.6e}",
            f"{pool.difference:.6e}",
            f"{pool.predicted:.6e}",
        )
        for document in documents
        for pool in document.pools
    ]
    return "".join([",".join(COLUMNS) + "\n", *lines]).encode()
