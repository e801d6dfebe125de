"""Holds a server to the identity of centring: raw minus centred is the pooled mean."""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.vector_tables import read_table
from actvec.client.vectors import Mode, Vector
from actvec.pooling import PoolIdentity, check_identity

COLUMNS = ("sample", "doc_len", "chunk", "cosine", "l2_diff", "||diff||", "||pred||")


@dataclass(frozen=True)
class DocumentIdentity:
    """How well the identity holds for one document.

    Attributes:
        id: The document's id.
        tokens: Tokens that were pooled.
        pools: For each pool of the mode, in its order.
    """

    id: str
    tokens: int
    pools: tuple[PoolIdentity, ...]

    @property
    def relative_error(self) -> float:
        """The worst pool's error, as a fraction of what was predicted; NaN where one is NaN."""
        return float(np.max([pool.relative_error for pool in self.pools]))


def holds(documents: Collection[DocumentIdentity], tolerance: float) -> bool:
    """Whether the identity holds: of one document or more, and of each within the tolerance."""
    # Each, not the worst: NaN is neither greater than a tolerance nor within it.
    return bool(documents) and all(one.relative_error <= tolerance for one in documents)


def worst_error(documents: Collection[DocumentIdentity]) -> float | None:
    """The largest `relative_error`, NaN where one is NaN; None where there is no document."""
    if not documents:
        return None
    return float(np.max([one.relative_error for one in documents]))


def verify_vectors(raw: Vector, centred: Vector, mean: NDArray[np.float32]) -> DocumentIdentity:
    """Hold two vectors of one document to the mean `[N, D]` that is between them.

    A document longer than the mean is centred by its last N tokens; its raw vector is of all, and
    the identity says nothing of it.

    Raises:
        InvalidArgument: the vectors are not of the same document, mode and tokens.
    """
    if raw.tokens_used != centred.tokens_used:
        raise InvalidArgument(
            f"document {raw.id!a} has {raw.tokens_used} tokens, of which {centred.tokens_used} were"
            f" centred: the mean has {len(mean)} positions, and only those can be compared"
        )
    if (raw.text_sha256, raw.stamp.mode) != (centred.text_sha256, centred.stamp.mode):
        raise InvalidArgument(f"the vectors of {raw.id!a} are of different texts or modes")
    pools = check_identity(raw.stamp.mode, raw.values, centred.values, mean, centred.tokens_used)
    return DocumentIdentity(raw.id, centred.tokens_used, tuple(pools))


def verify_columns(
    mode: Mode, raw: Path, centred: Path, mean: NDArray[np.float32], lengths: Mapping[str, int]
) -> Iterator[DocumentIdentity]:
    """Hold two CSV files, as `actvec csv` writes them, to a mean `[N, D]`.

    Args:
        mode: The mode of the vectors.
        raw: Columns of raw vectors, each below its document's label.
        centred: The same, centred.
        mean: By distance from the end.
        lengths: Tokens of each document.

    Raises:
        InvalidArgument: a file is not of that form, or they do not fit together.
    """
    raw_table, centred_table = read_table(raw), read_table(centred)
    if raw_table.labels != centred_table.labels:
        raise InvalidArgument(f"{raw} and {centred} have other documents, or another order")
    pairs = zip(raw_table.labels, raw_table.values, centred_table.values, strict=True)
    for label, raw_vector, centred_vector in pairs:
        if label not in lengths:
            raise InvalidArgument(f"the length of {label!a} is not known")
        try:
            pools = check_identity(mode, raw_vector, centred_vector, mean, lengths[label])
        except ValueError as error:
            raise InvalidArgument(f"{label!a}: {error}") from error
        yield DocumentIdentity(label, lengths[label], tuple(pools))


def read_lengths(path: Path) -> dict[str, int]:
    """Tokens by label, from a CSV file whose lines are `label,tokens`; a header is skipped.

    Raises:
        InvalidArgument: it is not of that form.
        OSError: it cannot be read.
    """
    lengths: dict[str, int] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if len(row) == 2 and row[1].strip().isdecimal():
                lengths[row[0]] = int(row[1])
            elif number > 1:
                raise InvalidArgument(f"{path}, line {number}: wants label,tokens")
    return lengths


def to_csv(documents: Iterable[DocumentIdentity]) -> bytes:
    """The table as CSV: a line a document and pool, under `COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for document in documents:
        for pool in document.pools:
            writer.writerow(
                [
                    document.id,
                    document.tokens,
                    pool.pool,
                    f"{pool.cosine:.9f}",
                    f"{pool.error:.6e}",
                    f"{pool.difference:.6e}",
                    f"{pool.predicted:.6e}",
                ]
            )
    return text.getvalue().encode()
