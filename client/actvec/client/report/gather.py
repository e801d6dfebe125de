"""What a report is about, from vectors of a server or from CSV files."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.means import MeanFile
from actvec.client.paired import PairedVectors
from actvec.client.vector_tables import VectorTable, read_table, table_name
from actvec.client.vectors import Document, Mode, Stamp
from actvec.pooling import pooled_mean, pools


@dataclass(frozen=True, eq=False)
class Material:
    """Vectors of documents and what is known about them; None where something is not.

    Attributes:
        mode: `short` or `long`.
        labels: The documents' ids.
        raw: `[N, K, D]` float32.
        centred: The same, centred.
        predicted: The pooled mean of each document, `[N, K, D]` float32.
        tokens: Tokens that were pooled, of each document.
        counts: Documents behind each position of the mean, int64 `[max_tokens]`.
        stamp: What the centred vectors depend on, or the raw ones where there are no others.
        text: The first document.
    """

    mode: Mode
    labels: tuple[str, ...]
    raw: NDArray[np.float32]
    centred: NDArray[np.float32] | None = None
    predicted: NDArray[np.float32] | None = None
    tokens: tuple[int, ...] | None = None
    counts: NDArray[np.int64] | None = None
    stamp: Stamp | None = None
    text: Document | None = None

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the K pools, in the order of the vector."""
        return tuple(pool.name for pool in pools(self.mode))


def gather(
    pairs: PairedVectors, text: Document | None = None, mean: MeanFile | None = None
) -> Material:
    """Material of vectors that a server made.

    Args:
        pairs: The vectors, at least one.
        text: The document of the first of them, to show its text.
        mean: The mean between raw and centred vectors.

    Raises:
        InvalidArgument: there is no vector.
    """
    if not pairs.raw:
        raise InvalidArgument("no document has a vector, so there is nothing to report")
    vectors = pairs.centered or pairs.raw
    tokens = tuple(vector.tokens_used for vector in vectors)
    mode = vectors[0].stamp.mode
    return Material(
        mode=mode,
        labels=tuple(vector.id or vector.text_sha256[:12] for vector in pairs.raw),
        raw=np.stack([vector.matrix for vector in pairs.raw]),
        centred=np.stack([v.matrix for v in pairs.centered]) if pairs.centered else None,
        predicted=_predictions(mode, mean, tokens) if mean is not None else None,
        tokens=tokens,
        counts=None if mean is None else mean.counts,
        stamp=vectors[0].stamp,
        text=text,
    )


def gather_tables(
    raw: str | Path, centred: str | Path | None = None, *, mode: Mode | None = None
) -> Material:
    """Material of tables that `actvec csv` wrote, or of others of that layout.

    Args:
        raw: The table of raw vectors.
        centred: That of centred ones.
        mode: The mode of the vectors; may be left out where `raw` has the name that `actvec csv`
            gave it, which says the mode.

    Raises:
        UnsupportedInput: a file is not there, or no such table.
        InvalidArgument: the tables do not go together, are not of that mode, or the mode is not
            known.
    """
    mode = mode or _mode_by_name(raw)
    one = read_table(raw)
    if centred is None:
        return Material(mode=mode, labels=one.labels, raw=_rows(one, mode, raw))
    other = read_table(centred)
    if (other.labels, other.values.shape) != (one.labels, one.values.shape):
        raise InvalidArgument(f"{raw} and {centred} have other documents or dimensions")
    return Material(
        mode=mode,
        labels=one.labels,
        raw=_rows(one, mode, raw),
        centred=_rows(other, mode, centred),
    )


def _mode_by_name(path: str | Path) -> Mode:
    modes = {
        table_name(mode, centered=centered): mode
        for mode in get_args(Mode)
        for centered in (False, True)
    }
    mode: Mode | None = modes.get(Path(path).name)
    if mode is None:
        raise InvalidArgument(
            f"the mode of the vectors in {path} is not known, as its name is none that `actvec csv`"
            " gives; say which it is (--mode short or --mode long)"
        )
    return mode


def _rows(table: VectorTable, mode: Mode, path: str | Path) -> NDArray[np.float32]:
    count = len(pools(mode))
    if table.values.shape[1] % count:
        raise InvalidArgument(f"{path}: its rows are not those of the {count} pools of mode {mode}")
    return table.values.reshape(len(table.labels), count, -1)


def _predictions(mode: Mode, mean: MeanFile, tokens: tuple[int, ...]) -> NDArray[np.float32]:
    by_distance = mean.mean
    pooled = [pooled_mean(mode, by_distance, count) for count in tokens]
    return np.stack(pooled).reshape(len(tokens), len(pools(mode)), -1)
