"""The files of each format, read back with nothing but what is in them."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import DataLoss, UnsupportedInput
from actvec.client.extras import import_extra

# What every format tells of a document.
_FACTS = (
    *("index", "id", "tokens", "tokens_used", "truncated", "smallest_count", "text_sha256"),
    *("source", "bos"),
)

_DTYPES = {"F16": np.float16, "F32": np.float32}

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """One file of vectors, or the single files of a folder that have one stamp.

    Attributes:
        paths: The file, or the metadata of the single ones.
        facts: What the format tells of each document, with its `id`.
        columns: The columns of the corpus that were kept of each.
        stamp: The stamp, as it is written.
        read: Gives the numbers `[n, L * K * D]`; it raises DataLoss if they are damaged.
    """

    paths: Sequence[Path]
    facts: Sequence[Record]
    columns: Sequence[Record]
    stamp: Record
    read: Callable[[], NDArray[Any]]


def read_shard(index: Path) -> Part:
    """A shard, by its index `vectors-00000.jsonl`; its numbers are memory-mapped.

    Raises:
        DataLoss: it is damaged, or its vectors are missing.
    """
    path = index.with_suffix(".safetensors")
    with damage(index):
        lines = [json.loads(line) for line in index.read_bytes().splitlines()]
        if not lines:
            raise ValueError("it has no rows")
        header, _ = _header(path)
        stamp, written = json.loads(header["__metadata__"]["stamp"]), header["vec"]["shape"][0]
        # A kill can leave more vectors than rows, of the last shard.
        if written < len(lines) or (written > len(lines) and _next(index).exists()):
            raise ValueError(f"it has {len(lines)} rows, and its vectors {written}")
        return Part([path], *_told(lines), stamp, partial(_read_rows, path, len(lines)))


def _next(index: Path) -> Path:
    return index.with_name(f"vectors-{int(index.stem.removeprefix('vectors-')) + 1:05d}.jsonl")


def read_parquet(path: Path) -> Part:
    """A Parquet file with a column `vector`; rows without a vector are skipped.

    Raises:
        MissingExtra: pyarrow is not installed.
        UnsupportedInput: it has no vectors of ours.
        DataLoss: it is damaged.
    """
    pq = import_extra("pyarrow.parquet", "data")
    with damage(path), pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        stamp = (schema.metadata or {}).get(b"actvec.stamp")
        if stamp is None or not {"id", "vector"} <= set(schema.names):
            raise UnsupportedInput(
                f"{path} has no vectors: no columns `id` and `vector`, or no stamp"
            )
        table = file.read([name for name in schema.names if name != "vector"])
        # Ray's files name no shape, and have the rows of documents that failed.
        if "error" in schema.names and b"actvec.shape" not in schema.metadata:
            table = table.filter(table["error"].is_null()).drop_columns("error")
        facts = [name for name in table.column_names if name in _FACTS]
        return Part(
            [path],
            table.select(facts).to_pylist(),
            table.drop_columns(facts).to_pylist(),
            json.loads(stamp),
            partial(_read_column, path),
        )


def read_single(paths: Sequence[Path]) -> list[Part]:
    """Vectors in files of their own, by their metadata: a part for each stamp.

    Raises:
        DataLoss: the metadata are damaged.
    """
    by_stamp: dict[str, list[tuple[Path, Record]]] = {}
    for path in paths:
        with damage(path):
            metadata = json.loads(path.read_bytes())
            stamp = json.dumps(metadata["stamp"], sort_keys=True)
            by_stamp.setdefault(stamp, []).append((path, metadata))
    return [_single(metadata) for metadata in by_stamp.values()]


def _single(metadata: Sequence[tuple[Path, Record]]) -> Part:
    with damage(metadata[0][0]):
        ordered = sorted(metadata, key=lambda one: (one[1]["index"], one[0].name))
        paths, records = zip(*ordered, strict=True)
        vectors = [path.with_name(one["vector_file"]) for path, one in ordered]
        return Part(paths, *_told(records), records[0]["stamp"], partial(_read_files, vectors))


def _told(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The facts and the kept columns in records of JSON."""
    facts: list[Record] = [
        {name: one[name] for name in _FACTS if name in one or name == "id"} for one in records
    ]
    return facts, [one.get("columns", {}) for one in records]


def _map(path: Path) -> NDArray[Any]:
    """The tensor `vec` of a safetensors file, memory-mapped: their library would copy it."""
    header, start = _header(path)
    vec = header["vec"]
    first, _ = vec["data_offsets"]
    return np.memmap(path, _DTYPES[vec["dtype"]], "r", start + first, tuple(vec["shape"]))


def _read_rows(path: Path, rows: int) -> NDArray[Any]:
    with damage(path):
        # A kill can leave more of them than the index has.
        return _map(path)[:rows]


def _read_column(path: Path) -> NDArray[Any]:
    pq = import_extra("pyarrow.parquet", "data")
    with damage(path):
        vectors = pq.read_table(path, columns=["vector"])["vector"].drop_null()
        numbers: NDArray[Any] = vectors.combine_chunks().flatten().to_numpy()
        return numbers.reshape(len(vectors), -1)


def _read_files(paths: Sequence[Path]) -> NDArray[Any]:
    rows = []
    for path in paths:
        with damage(path):
            rows.append(_map(path))
    return np.stack(rows)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file with one tensor, `vec`, and where its numbers begin."""
    there = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > there:
            raise ValueError("its header is not all there")
        header = json.loads(file.read(start - 8))
    end = start + header["vec"]["data_offsets"][1]
    if end != there:
        raise ValueError(f"it has {there:,} bytes, not {end:,}")
    return header, start


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Name the file in errors of what cannot be read.

    Raises:
        DataLoss: what the body raises, unless it is an error of ours.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataLoss(f"{path} or a file beside it cannot be read: {error}") from error
