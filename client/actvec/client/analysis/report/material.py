"""What a report is about, from vectors of a server, from folders of them or from CSV files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actvec.client.analysis.csv_parts import preset_of
from actvec.client.analysis.csv_tables import VectorTable, read_table, read_tables
from actvec.client.analysis.paired import PairedVectors
from actvec.client.analysis.verify import (
    DocumentIdentity,
    can_predict,
    holds,
    verify_vectors,
    worst_error,
)
from actvec.client.errors import InvalidArgument
from actvec.client.findings import Whitening
from actvec.client.records.columns import by_name
from actvec.client.records.means import MeanFile
from actvec.client.records.settings import Mode
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Document
from actvec.client.stored.vectors import StoredVectors
from actvec.pooling import pools

# The largest error of the identity, as a fraction of the pooled mean's norm, that is rounding.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Material:
    """Vectors of documents and what is known about them; None or empty if something is not.

    Attributes:
        ids: The documents' ids, which may repeat.
        kinds: The vectors `[N, L, K, D]` float32 by kind: `raw`, `centered`, `whitened`.
        pools: Names of the K pools.
        layers: The L layers; empty for their mean, L = 1.
        texts: The documents' contents.
        columns: What is known about each document, by name, such as its label.
        tokens: Tokens that were pooled, of each document.
        identity: Whether raw - centered is the pooled mean, in words.
        centering: What centered means, in words.
        counts: Documents behind each position of the mean, int64 `[max_tokens]`.
        stamp: What the centered vectors depend on, or the raw ones if there are no others.
        curves: The pools whose weights are drawn.
    """

    ids: tuple[str, ...]
    kinds: Mapping[str, NDArray[np.float32]]
    pools: tuple[str, ...] = ("vector",)
    layers: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    tokens: tuple[int, ...] = ()
    identity: str = ""
    centering: str = ""
    counts: NDArray[np.int64] | None = None
    stamp: Stamp | None = None
    curves: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, L and K."""
        count, layers, pools, _ = next(iter(self.kinds.values())).shape
        return count, layers, pools


def gather(
    pairs: PairedVectors, documents: Iterable[Document] = (), mean: MeanFile | None = None
) -> Material:
    """Material of vectors that a server made.

    Args:
        pairs: The vectors, at least one.
        documents: Those that were asked for, to show their texts.
        mean: The mean between raw and centered vectors.

    Raises:
        InvalidArgument: there is no vector.
    """
    if not pairs.raw:
        raise InvalidArgument("no document has a vector, so there is nothing to report")
    vectors = pairs.centered or pairs.raw
    stamp = vectors[0].stamp
    # By digest, because several documents may have one id, and some no vector.
    contents = {one.digest().hex(): one.content for one in documents}
    return Material(
        ids=tuple(vector.id or vector.text_sha256[:12] for vector in pairs.raw),
        kinds={
            name: np.stack([vector.array for vector in found])
            for name, found in (("raw", pairs.raw), ("centered", pairs.centered))
            if found
        },
        pools=tuple(pool.name for pool in stamp.pools),
        layers=stamp.layers if stamp.separate_layers else (),
        texts=tuple(contents.get(vector.text_sha256, "") for vector in pairs.raw),
        columns=by_name([vector.columns for vector in pairs.raw]),
        tokens=tuple(vector.tokens_used for vector in vectors),
        identity="" if mean is None else _identity(pairs, mean.mean_of(stamp)),
        centering="" if mean is None else str(mean.record),
        counts=None if mean is None else mean.counts,
        stamp=stamp,
        curves=_curves(stamp),
    )


def gather_stored(
    vectors: StoredVectors, whitening: Whitening | None = None, *, limit: int = 2000
) -> Material:
    """Material of vectors on disk; those that are raw are also centered by their own average.

    Args:
        vectors: From `load`. A column `text` that was kept holds the documents' texts.
        whitening: Adds the kind `whitened`.
        limit: Only the first documents, as many as this.

    Raises:
        InvalidArgument: there is no vector.
        FailedPrecondition: the whitening is of another stamp.
    """
    if not len(vectors):
        raise InvalidArgument("the folder holds no vector, so there is nothing to report")
    stamp = vectors.stamp
    array = _first(vectors, limit)
    count = len(array)
    if stamp.centered:
        kinds, centering = {"centered": array}, stamp.corpus_mean_id
    else:
        average = array.mean(axis=0, dtype=np.float64).astype(np.float32)
        kinds = {"raw": array, "centered": array - average}
        centering = "the average of these documents"
    if whitening is not None:
        kinds["whitened"] = whitening.of(stamp).array(array).astype(np.float32)
    columns = {name: values[:count].tolist() for name, values in vectors.columns.items()}
    return Material(
        ids=tuple(vectors.ids[:count]),
        kinds=kinds,
        pools=vectors.pools,
        layers=stamp.layers if stamp.separate_layers else (),
        texts=tuple(str(text or "") for text in columns.pop("text", ())),
        columns=columns,
        tokens=tuple(map(int, vectors.facts.get("tokens_used", ())[:count])),
        centering=centering,
        stamp=stamp,
        curves=_curves(stamp),
    )


def _first(vectors: StoredVectors, limit: int) -> NDArray[np.float32]:
    """The first vectors, `[N, L, K, D]`."""
    blocks, found = [], 0
    for _, block in vectors.blocks():
        blocks.append(block[: limit - found])
        found += len(blocks[-1])
        if found == limit:
            break
    return np.concatenate(blocks)


def _curves(stamp: Stamp) -> tuple[str, ...]:
    return tuple(pool.name for pool in stamp.pools if can_predict(pool.name))


def _identity(pairs: PairedVectors, mean: NDArray[np.float32]) -> str:
    """Whether `raw - centered` is the pooled mean `[N, D]` or `[L, N, D]`, in words."""
    checked: list[DocumentIdentity] = []
    for raw, centered in zip(pairs.raw, pairs.centered, strict=True):
        # The identity covers neither the rest of a longer document nor spans.
        if raw.tokens_used == centered.tokens_used and _curves(raw.stamp):
            checked.append(verify_vectors(raw, centered, mean))
    worst = worst_error(checked)
    if worst is None:
        return "not checked: every pool is a span, or every document longer than the mean"
    verdict = "holds" if holds(checked, TOLERANCE) else "does NOT hold"
    missing = len(pairs.raw) - len(checked)
    rest = f"; {missing:,} documents are longer than the mean" if missing else ""
    return f"{verdict}, worst error {worst:.0e}{rest}"


def gather_tables(
    raw: str | Path, centered: str | Path | None = None, *, mode: Mode | None = None
) -> Material:
    """Material of tables that `actvec csv` wrote, or of others of that layout.

    Args:
        raw: The table of raw vectors.
        centered: That of centered ones.
        mode: The mode of the vectors; optional if `raw` has the name that `actvec csv` gave it,
            which names the mode.

    Raises:
        UnsupportedInput: a file is not there, or no such table.
        InvalidArgument: the tables do not go together, are not of that mode, or the mode is not
            known.
    """
    mode = mode or preset_of(Path(raw).name)
    if mode is None:
        raise InvalidArgument(
            f"the mode of the vectors in {raw} is unknown, because `actvec csv` gives no such name;"
            " say whether it is short or long",
            setting="mode",
        )
    names = tuple(pool.name for pool in pools(mode))
    if centered is None:
        one = read_table(raw)
        return Material(one.labels, {"raw": _array(one, mode, raw)}, names)
    one, other = read_tables(raw, centered)
    kinds = {"raw": _array(one, mode, raw), "centered": _array(other, mode, centered)}
    return Material(one.labels, kinds, names)


def _array(table: VectorTable, mode: Mode, path: str | Path) -> NDArray[np.float32]:
    """The vectors of a table, `[N, 1, K, D]`."""
    count = len(pools(mode))
    if table.values.shape[1] % count:
        raise InvalidArgument(
            f"{path}: its number of rows does not fit the {count} pools of mode {mode}"
        )
    return table.values.reshape(len(table.labels), 1, count, -1)
