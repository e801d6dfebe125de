"""Vectors as CSV: one column per document and one row per dimension, under a header of labels."""

import codecs
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.analysis.csv_cells import csv_line, read_label
from actvec.client.analysis.csv_parts import TablePart, parts_of
from actvec.client.analysis.paired import PairedVectors
from actvec.client.errors import DataLoss, FailedPrecondition, InvalidArgument, UnsupportedInput
from actvec.client.files import Content, atomic_file, given_path, write_atomic, write_json
from actvec.client.records.differences import differences
from actvec.client.records.stamp import Stamp

# A float32 of magnitude 1/8 or more is read back to the bit, a smaller one within 7.5e-9, which is
# the distance of neighbors below 1/8.
DECIMALS = 8

# Rows that are brought into the file's order at a time.
_BLOCK = 256

_METADATA = "vectors_metadata.json"


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Vectors under their labels.

    Attributes:
        labels: One a document, each different.
        values: `[N, K * D]` float32, one row per document: the transpose of the file.
    """

    labels: tuple[str, ...]
    values: NDArray[np.float32]


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
            f"a table needs a different label for each of its {len(vectors)} vectors"
        )
    if len({vector.shape for vector in vectors}) > 1:
        raise InvalidArgument("the vectors of a table must have one mode and one model")
    row_format = ",".join([f"%.{DECIMALS}f"] * len(vectors)) + "\n"
    with atomic_file(given_path(path)) as temporary, temporary.open("wb") as file:
        file.write(csv_line(*labels).encode())
        for start in range(0, len(vectors[0]), _BLOCK):
            block = np.stack([vector[start : start + _BLOCK] for vector in vectors], axis=1)
            lines = "".join(row_format % tuple(row) for row in block.tolist())
            file.write(lines.encode("ascii"))


def read_table(path: str | Path) -> VectorTable:
    """Read a table that `write_table` wrote, or one of the same layout.

    Raises:
        UnsupportedInput: it is not there, or no table of finite numbers with one label per column.
        DataLoss: it lacks rows, by the metadata beside it.
    """
    path = given_path(path)
    try:
        with path.open("rb") as file:
            labels = _read_header(file)
            if not file.peek(1).strip():
                raise ValueError("it has no numbers below its labels")
            columns = np.loadtxt(file, dtype=np.float32, delimiter=",", comments=None, ndmin=2)
    except OSError as error:
        raise UnsupportedInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UnsupportedInput(f"{path} is not a table of vectors: {error}") from error
    if columns.shape[1] != len(labels):
        raise UnsupportedInput(
            f"{path} is not a table of vectors: {len(labels)} labels above rows of "
            f"{columns.shape[1]} numbers"
        )
    written = _tables_there(path.with_name(_METADATA)).get(path.name, {}).get("dimensions")
    if written not in (None, len(columns)):
        raise DataLoss(
            f"{path} has {len(columns):,} rows, not {written:,}: it was altered. Restore it from a"
            " copy, or write the tables again"
        )
    if len(set(labels)) < len(labels):
        raise UnsupportedInput(f"{path}: a label occurs twice")
    if not np.isfinite(columns).all():
        raise UnsupportedInput(f"{path}: not every number is finite")
    return VectorTable(labels, np.ascontiguousarray(columns.T))


def read_tables(raw: str | Path, centered: str | Path) -> tuple[VectorTable, VectorTable]:
    """Read the tables of raw and of centered vectors of the same documents.

    Raises:
        UnsupportedInput: see `read_table`.
        InvalidArgument: they are of other documents, in another order, or of other dimensions.
    """
    one, other = read_table(raw), read_table(centered)
    if (other.labels, other.values.shape) != (one.labels, one.values.shape):
        raise InvalidArgument(
            f"{raw} and {centered} differ in documents, their order, or dimensions; give two tables"
            " that were written together"
        )
    return one, other


def write_tables(folder: str | Path, pairs: PairedVectors) -> list[Path]:
    """Write the tables of vectors, raw and (if there are any) centered, and what they depend on.

    Long vectors of one layer or of the layers' mean have the tables of both presets,
    `vectors_<mode>_mode_<raw|centered>.csv` (a short vector is a part of the long one, to the bit).
    Any others have a table for each layer and pool: `vectors_mean_raw.csv`, or
    `vectors_layer8_mean_raw.csv` if layers are separate. `vectors_lengths.csv` has a line
    `label,tokens` per document with the tokens of its raw vector; `vectors_metadata.json`, written
    last, has lengths and stamps, and each table's SHA-256.

    What an earlier run of the same stamp left under these names is removed or replaced.

    Returns:
        The files written.

    Raises:
        InvalidArgument: there is no vector, or two share an id.
        FailedPrecondition: the folder holds tables of another stamp.
        OSError: they cannot be written.
    """
    if not pairs.raw:
        raise InvalidArgument("a table needs at least one vector")
    folder = given_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata_path = folder / _METADATA
    parts = parts_of(pairs.raw[0].stamp)
    _check_free(folder, metadata_path, pairs, parts)
    metadata_path.unlink(missing_ok=True)
    written: list[Path] = []
    tables: dict[str, Any] = {}
    for part in parts:
        for centered, vectors in ((False, pairs.raw), (True, pairs.centered)):
            path = folder / part.table_name(centered=centered)
            if not vectors:
                path.unlink(missing_ok=True)
                continue
            rows = [part.of(vector) for vector in vectors]
            write_table(path, [vector.id for vector in vectors], rows)
            tables[path.name] = {
                "sha256": Content.of(path).sha256,
                "dimensions": len(rows[0]),
                "stamp": part.stamp(vectors[0].stamp).to_dict(),
            }
            written.append(path)
    lengths_path = folder / "vectors_lengths.csv"
    lines = [csv_line(vector.id, vector.tokens_used) for vector in pairs.raw]
    write_atomic(lengths_path, "".join(["label,tokens\n", *lines]).encode())
    metadata = {"decimals": DECIMALS, "tables": tables, "documents": _documents(pairs)}
    write_json(metadata_path, metadata)
    return [*written, lengths_path, metadata_path]


def _check_free(
    folder: Path, metadata_path: Path, pairs: PairedVectors, parts: Sequence[TablePart]
) -> None:
    """See that no table of another stamp is replaced, or left without its stamp.

    Raises:
        FailedPrecondition: one would be.
    """
    stamps = {
        part.table_name(centered=centered): part.stamp(vectors[0].stamp) if vectors else None
        for part in parts
        for centered, vectors in ((False, pairs.raw), (True, pairs.centered))
    }
    for name, table in _tables_there(metadata_path).items():
        if not (folder / name).exists():
            continue
        if name not in stamps:
            reason = "other layers or pools"
        elif (here := stamps[name]) is None or not (
            reason := differences(table["stamp"], here.to_dict())
        ):
            continue
        raise FailedPrecondition(
            f"{folder / name} holds vectors of another stamp, and is not replaced: {reason}; give"
            " another folder, or remove the tables there"
        )


def _tables_there(metadata_path: Path) -> dict[str, dict[str, Any]]:
    """What a folder's metadata tell of each table, with its whole stamp, if there are any."""
    try:
        tables = json.loads(metadata_path.read_bytes())["tables"]
        return {
            str(name): {**table, "stamp": Stamp.complete(table["stamp"])}
            for name, table in tables.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


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
        if raw.columns:
            document["columns"] = dict(raw.columns)
        documents.append(document)
    return documents


def _read_header(file: BufferedReader) -> tuple[str, ...]:
    """The labels; a quoted one may hold a line break. The file stands at the first row after."""
    if file.peek(3).startswith(codecs.BOM_UTF8):
        file.read(3)
    labels = next(csv.reader(line.decode() for line in iter(file.readline, b"")), None)
    if not labels:
        raise ValueError("it has no header")
    return tuple(map(read_label, labels))
