"""Reads vectors back from disk, in each format, without any of our code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file


class Saved(NamedTuple):
    """A vector as found on disk."""

    index: int
    id: str
    text_sha256: str
    values: np.ndarray


def _read_files(folder: Path) -> Iterator[Saved]:
    for path in folder.glob("*_metadata.json"):
        record = json.loads(path.read_text())
        values = load_file(folder / record["vector_file"])["vec"]
        yield Saved(record["index"], record["id"], record["text_sha256"], values)


def _read_shards(folder: Path) -> Iterator[Saved]:
    for path in sorted(folder.glob("vectors-*.jsonl")):
        values = load_file(path.with_suffix(".safetensors"))["vec"]
        for row, line in enumerate(path.read_text().splitlines()):
            record = json.loads(line)
            assert record["row"] == row
            yield Saved(record["index"], record["id"], record["text_sha256"], values[row])


def _read_parquet(folder: Path) -> Iterator[Saved]:
    for path in sorted(folder.glob("vectors.parquet/part-*.parquet")):
        table = pq.read_table(path)
        values = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
        names = ("index", "id", "text_sha256")
        for row, record in enumerate(table.select(names).to_pylist()):
            yield Saved(*(record[name] for name in names), values[row])


_READERS = {"files": _read_files, "shards": _read_shards, "parquet": _read_parquet}


def read_back(folder: Path, layout: str) -> list[Saved]:
    """Every vector in a folder, in the order of the files."""
    return list(_READERS[layout](folder))
