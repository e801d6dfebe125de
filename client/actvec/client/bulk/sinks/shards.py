"""Vectors in safetensors files of many rows, with an index beside each."""

import json
import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from actvec.client.bulk.sinks.numbered_files import FileRows, NumberedSink
from actvec.client.bulk.sinks.sink import Row
from actvec.client.errors import DataLoss


class ShardSink(NumberedSink):
    """`vectors-00000.safetensors`, with the index `vectors-00000.jsonl`, and so on.

    The safetensors file holds one tensor, `vec`, `[rows, L * K * D]`, and the stamp as JSON in its
    metadata. The index has one line per row, in the same order: an object with `row`, `shape` (`[L,
    K, D]`) and the fields of `Row`, of which `columns` is optional. The sink writes it last: a row
    exists once the index lists it.
    """

    _complete = re.compile(r"vectors-(\d{5,})\.jsonl")

    def _write(self, number: int, content: FileRows, values: NDArray[Any]) -> None:
        # Only one entry: safetensors writes several in arbitrary order, and equal rows must give
        # equal bytes.
        data = save({"vec": values}, metadata={"stamp": json.dumps(content.stamp)})
        with self._whole_file(self._path(number, "safetensors")) as temporary:
            temporary.write_bytes(data)
        lines = (
            json.dumps({"row": at, "shape": content.shape} | row.to_dict()) + "\n"
            for at, row in enumerate(content.rows)
        )
        with self._whole_file(self._path(number, "jsonl")) as temporary:
            temporary.write_bytes("".join(lines).encode())

    def _read(self, number: int) -> FileRows:
        path, index = self._path(number, "safetensors"), self._path(number, "jsonl")
        try:
            records = [json.loads(line) for line in index.read_bytes().splitlines()]
            rows = [Row.parse(record) for record in records]
            with safe_open(path, "numpy") as file:
                stamp = json.loads(file.metadata()["stamp"])
                written, width = file.get_slice("vec").get_shape()
        except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
            raise DataLoss(f"{index} or its vectors cannot be read: {error}") from error
        if not rows or written < len(rows):
            raise DataLoss(f"{index} has {len(rows)} rows and {path} {written}")
        # Files of an earlier version have no shape.
        return FileRows(rows, stamp, tuple(records[0].get("shape", [width])))

    def _read_values(self, number: int) -> NDArray[Any]:
        with safe_open(self._path(number, "safetensors"), "numpy") as file:
            values: NDArray[Any] = file.get_tensor("vec")
            return values

    def _paths(self, number: int) -> list[Path]:
        return [self._path(number, suffix) for suffix in ("safetensors", "jsonl")]

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"vectors-{number:05d}.{suffix}"
