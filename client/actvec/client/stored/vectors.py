"""The vectors of many documents with their ids, columns and stamp."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.records.display import Html, details, record
from actvec.client.records.settings import canonical_pool
from actvec.client.records.stamp import Stamp
from actvec.client.stored import frames

# Numbers that are brought to float32 at a time: 64 MB.
_BLOCK = 1 << 24


class Parts(Sequence[NDArray[Any]]):
    """Arrays, each made when it is requested."""

    def __init__(self, make: Sequence[Callable[[], NDArray[Any]]]) -> None:
        self._make = make

    def __len__(self) -> int:
        return len(self._make)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return Parts(self._make[number])
        return self._make[number]()


@dataclass(frozen=True, eq=False)
class StoredVectors:
    """The vectors of N documents, as `load` finds them on disk.

    Examples:
        >>> vectors = load("vectors")
        >>> vectors.array[vectors.columns["label"] == "warm"].mean(axis=0)  # [L, K, D]
        >>> frame = vectors.to_pandas()

    Attributes:
        parts: The numbers, `[n, L, K, D]` float16 or float32 each: N rows in all. Those of shards
            are memory-mapped; others are read each time that they are asked for.
        ids: The documents' ids, in the order of the rows.
        columns: The columns of the corpus that were kept, `label` for example: `[N]` each.
        stamp: What all the vectors depend on besides their documents.
        facts: What the files record about the documents, for example `tokens` and `text_sha256`:
            `[N]` each.
        path: The folder or file that they come from; None for vectors of a program.
    """

    parts: Sequence[NDArray[Any]] = field(repr=False)
    ids: Sequence[str] = field(repr=False)
    columns: Mapping[str, NDArray[Any]] = field(repr=False)
    stamp: Stamp
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    path: Path | None = None

    def __len__(self) -> int:
        """N, the number of documents."""
        return len(self.ids)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """L, K and D: layers (1 for their mean), pools, width."""
        layers, pools, width = self.parts[0].shape[1:]
        return layers, pools, width

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the L layers: `8`; or `25-26-27`, the mean of three."""
        names = tuple(map(str, self.stamp.layers))
        return names if self.stamp.separate_layers else ("-".join(names),)

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the K pools."""
        return tuple(pool.name for pool in self.stamp.pools)

    @cached_property
    def array(self) -> NDArray[Any]:
        """All numbers, `[N, L, K, D]`.

        Memory-mapped if they are in one shard; otherwise they are read into memory, all of them.
        `blocks` and `rows` are for folders that do not fit there.
        """
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(list(self.parts))

    def _repr_html_(self) -> str:
        shape = " x ".join(map(str, (len(self), *self.shape)))
        facts = {
            "path": self.path or "",
            "layers": self.layers,
            "pools": self.pools,
            "columns": tuple(self.columns),
        }
        title = f"{len(self):,} documents: {shape} numbers"
        return record(title, facts) + details("stamp", Html(self.stamp._repr_html_()))

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """All numbers in float32, 64 MB at a time: which rows, and their `[n, L, K, D]`."""
        step = max(1, _BLOCK // int(np.prod(self.shape)))
        first = 0
        for part in self.parts:
            for start in range(0, len(part), step):
                block = part[start : start + step].astype(np.float32)
                yield slice(first, first + len(block)), block
                first += len(block)

    def rows(self, layer: int, pool: int) -> NDArray[np.float32]:
        """The vectors of one layer and pool, by their places from 0: `[N, D]` float32."""
        return np.concatenate(list(self.row_blocks(layer, pool)))

    def row_blocks(self, layer: int, pool: int) -> Iterator[NDArray[np.float32]]:
        """The same, about 64 MB at a time: `[n, D]` float32 each."""
        step = max(1, _BLOCK // self.shape[-1])
        for part in self.parts:
            for start in range(0, len(part), step):
                yield part[start : start + step, layer, pool].astype(np.float32)

    def column(self, name: str) -> NDArray[Any]:
        """The values `[N]` of a column, or of a fact.

        Raises:
            InvalidArgument: there is none of that name; the message names those there are.
        """
        if name in self.columns:
            return self.columns[name]
        if name in self.facts:
            return self.facts[name]
        kept = ", ".join(self.columns) or "none"
        raise InvalidArgument(
            f"the vectors have no column {name!r}; kept of the corpus: {kept}. A column must be"
            " named when the vectors are made",
            setting="keep",
        )

    def place(self, document_id: str) -> int:
        """The row of a document, from 0.

        Raises:
            InvalidArgument: no document has that id, or several have it.
        """
        found = [at for at, one in enumerate(self.ids) if one == document_id]
        if not found:
            raise InvalidArgument(
                f"no document has the id {document_id!r}; there are {len(self):,}, the first is"
                f" {self.ids[0]!r}"
            )
        if len(found) > 1:
            raise InvalidArgument(
                f"{len(found)} documents have the id {document_id!r}; take one with a unique id"
            )
        return found[0]

    def pick(
        self, layers: Sequence[int] | None = None, pools: Sequence[str] | None = None
    ) -> "StoredVectors":
        """The same documents with some layers and pools only.

        Args:
            layers: Numbers of blocks, as in the stamp; None for all.
            pools: Names, in any written form; None for all.

        Raises:
            InvalidArgument: the vectors do not have one of them.
        """
        if layers is not None and not self.stamp.separate_layers:
            raise InvalidArgument(
                f"the vectors are the mean of layers {self.layers[0]}; single layers are there if"
                " they were kept separate when the vectors were made",
                setting="layers",
            )
        known = self.stamp.layers
        asked = known if layers is None else sorted(set(layers))
        kept = [_place(layer, known, "layer") for layer in asked]
        if not self.stamp.separate_layers:
            kept = [0]
        names = self.pools if pools is None else tuple(dict.fromkeys(map(canonical_pool, pools)))
        kept_pools = [_place(pool, self.pools, "pool") for pool in names]

        def part(number: int) -> NDArray[Any]:
            chosen: NDArray[Any] = self.parts[number][:, kept][:, :, kept_pools]
            return chosen

        return replace(
            self,
            parts=Parts([partial(part, number) for number in range(len(self.parts))]),
            stamp=self.stamp.pick(tuple(asked), kept_pools),
        )

    def to_arrow(self) -> Any:
        """A `pyarrow.Table`: `id`, facts, columns, and `vector`, `L * K * D` float32 numbers each.

        A column of the corpus stands for a fact of its name. One whose values have several types,
        or are integers beyond 64 bits, is strings.

        Raises:
            InvalidArgument: a column of the corpus is `vector`, or an `id` that differs from `ids`.
            MissingExtra: pyarrow is not installed.
        """
        table = frames.columns_table(self.ids, {**self.facts, **self.columns})
        return frames.with_vectors(table, self.stamp, (block for _, block in self.blocks()))

    def to_dataset(self) -> Any:
        """A `datasets.Dataset` with the columns of `to_arrow`.

        Raises:
            MissingExtra: datasets is not installed.
        """
        datasets = import_extra("datasets", "data")
        return datasets.Dataset(datasets.table.InMemoryTable(self.to_arrow()))

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with the columns of `to_arrow`; `vector` holds arrays.

        Raises:
            MissingExtra: pandas or pyarrow is not installed.
        """
        import_extra("pandas", "frames")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """A `polars.DataFrame` with the columns of `to_arrow`; `vector` is a `polars.Array`.

        Raises:
            MissingExtra: polars or pyarrow is not installed.
        """
        return import_extra("polars", "frames").from_arrow(self.to_arrow())

    def to_torch(self) -> Any:
        """A `torch.Tensor` `[N, L, K, D]` of the dtype of the files, in memory of its own.

        Raises:
            MissingExtra: torch is not installed.
        """
        return import_extra("torch", "server").from_numpy(np.array(self.array))


def _place(wanted: object, known: Sequence[object], kind: str) -> int:
    if wanted not in known:
        raise InvalidArgument(
            f"the vectors have no {kind} {wanted}; there are: {', '.join(map(str, known))}",
            setting=f"{kind}s",
        )
    return known.index(wanted)
