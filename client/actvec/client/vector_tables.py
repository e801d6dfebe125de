"""Vectors as CSV: a column a document, a row a dimension, under a header of labels."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument, UnsupportedInput
from actvec.client.paired import PairedVectors
from actvec.client.vectors import Mode, Vector
from actvec.client.whole import whole_file, write_whole
from actvec.pooling import pools

# A float32 of magnitude 1/8 or more is read back to the bit, a smaller one within 5e-9.
DECIMALS = 8

# Rows that are brought into the file's order at a time.
_BLOCK = 256

_MODES: tuple[Mode, ...] = ("short", "long")


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Vectors under their labels.

    Attributes:
        labels: One a document, each different.
        values: `[N, K * D]` float32, a row a document: the transpose of the file.
    """

    labels: tuple[str, ...]
    values: NDArray[np.float32]


def table_name(mode: Mode, *, centered: bool) -> str:
    """The name of a file: `vectors_<mode>_mode_<raw|centered>.csv`."""
    return f"vectors_{mode}_mode_{'centered' if centered else 'raw'}.csv"


def write_table(path: str | Path, labels: Sequence[str], vectors: Sequence[NDArray[Any]]) -> None:
    """Write a table, whole or not at all, with `DECIMALS` decimals.

    Args:
        path: The file.
        labels: A label a document.
        vectors: A vector a document, each `[K * D]`.

    Raises:
        InvalidArgument: there is no document, a label occurs twice, there are not as many labels as
            vectors, or the vectors are of different lengths.
        OSError: it cannot be written.
    """
    if not vectors:
        raise InvalidArgument("a table needs at least one vector")
    if len(labels) != len(vectors) or len(set(labels)) < len(labels):
        raise InvalidArgument(
            f"a table needs a label of its own for each of its {len(vectors)} vectors"
        )
    if len({vector.shape for vector in vectors}) > 1:
        raise InvalidArgument("the vectors of a table are all of one mode and one model")
    row_format = ",".join([f"%.{DECIMALS}f"] * len(vectors)) + "\n"
    with whole_file(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(_csv([labels]))
        for start in range(0, len(vectors[0]), _BLOCK):
            block = np.stack([vector[start : start + _BLOCK] for vector in vectors], axis=1)
            lines = "".join(row_format % tuple(row) for row in block.tolist())
            file.write(lines.encode("ascii"))


def read_table(path: str | Path) -> VectorTable:
    """Read a table that `write_table` wrote, or one of the same layout.

    Raises:
        UnsupportedInput: it is not there, or no table of finite numbers under one label a column.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            labels = _read_header(file)
            if not file.peek(1):
                raise ValueError("there are no numbers below its labels")
            columns = np.loadtxt(file, dtype=np.float32, delimiter=",", comments=None, ndmin=2)
    except OSError as error:
        raise UnsupportedInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UnsupportedInput(f"{path} is no table of vectors: {error}") from error
    if columns.shape[1] != len(labels):
        raise UnsupportedInput(
            f"{path} is no table of vectors: {len(labels)} labels above rows of"
            f" {columns.shape[1]} numbers"
        )
    if len(set(labels)) < len(labels):
        raise UnsupportedInput(f"{path}: a label occurs twice")
    if not np.isfinite(columns).all():
        raise UnsupportedInput(f"{path}: not every number is finite")
    return VectorTable(labels, np.ascontiguousarray(columns.T))


def write_tables(folder: str | Path, pairs: PairedVectors) -> list[Path]:
    """Write the tables of long vectors in both modes, and what they depend on.

    That is `vectors_<mode>_mode_raw.csv` and, where there are centred vectors,
    `vectors_<mode>_mode_centered.csv`, for both modes (a short vector is a part of the long one, to
    the bit); `vectors_lengths.csv`, a line `label,tokens` a document with the tokens of its raw
    vector; and `vectors_metadata.json`, written last: lengths and stamps, and each table's
    SHA-256. What an earlier run left under these names is removed or replaced.

    Returns:
        The files written.

    Raises:
        InvalidArgument: there is no vector, two share an id, or they are not long.
        OSError: they cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata_path = folder / "vectors_metadata.json"
    metadata_path.unlink(missing_ok=True)
    written: list[Path] = []
    tables: dict[str, Any] = {}
    for mode in _MODES:
        for centered, vectors in ((False, pairs.raw), (True, pairs.centered)):
            path = folder / table_name(mode, centered=centered)
            if centered and not vectors:
                path.unlink(missing_ok=True)
                continue
            of_mode = [_in_mode(vector, mode) for vector in vectors]
            write_table(
                path, [vector.id for vector in of_mode], [vector.values for vector in of_mode]
            )
            tables[path.name] = {
                "sha256": _file_sha256(path),
                "dimensions": len(of_mode[0].values),
                "stamp": of_mode[0].stamp.to_dict(),
            }
            written.append(path)
    lengths_path = folder / "vectors_lengths.csv"
    write_whole(
        lengths_path,
        _csv([("label", "tokens"), *((vector.id, vector.tokens_used) for vector in pairs.raw)]),
    )
    metadata = {"decimals": DECIMALS, "tables": tables, "documents": _documents(pairs)}
    write_whole(metadata_path, (json.dumps(metadata, indent=2) + "\n").encode())
    return [*written, lengths_path, metadata_path]


def _in_mode(vector: Vector, mode: Mode) -> Vector:
    """A long vector, or the part of it that a shorter mode is."""
    if vector.stamp.mode != "long":
        raise InvalidArgument(f"tables are made of long vectors; {vector.id!a} is not one")
    if mode == "long":
        return vector
    kept = [pool.name for pool in pools(mode)]
    return replace(
        vector,
        values=np.concatenate([vector.pools[name] for name in kept]),
        stamp=replace(
            vector.stamp,
            mode=mode,
            pools=tuple(pool for pool in vector.stamp.pools if pool.name in kept),
        ),
    )


def _documents(pairs: PairedVectors) -> list[dict[str, Any]]:
    documents = []
    for number, raw in enumerate(pairs.raw):
        document: dict[str, Any] = {
            "id": raw.id,
            "text_sha256": raw.text_sha256,
            "tokens": raw.tokens,
            "tokens_used": raw.tokens_used,
            "truncated": raw.truncated,
        }
        if pairs.centered:
            centered = pairs.centered[number]
            document["tokens_used_centered"] = centered.tokens_used
            document["smallest_count"] = centered.smallest_count
        documents.append(document)
    return documents


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _read_header(file: BufferedReader) -> tuple[str, ...]:
    """The labels; a quoted one may hold a line break. The file stands at the first row after."""
    lines = (line.decode("utf-8-sig") for line in iter(file.readline, b""))
    labels = next(csv.reader(lines), None)
    if not labels:
        raise ValueError("there is no header")
    return tuple(labels)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
