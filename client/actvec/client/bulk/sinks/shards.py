"""Vectors in safetensors files of many rows, with an index beside each."""

import json
import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save

from actvec.client.bulk.sinks.numbered_files import NumberedSink
from actvec.client.bulk.sinks.sink import Row
from actvec.client.stored.parts import Part, read_shard


class ShardSink(NumberedSink):
    """`vectors-00000.safetensors`, with the index `vectors-00000.jsonl`, and so on.

    The safetensors file holds one tensor, `vec`, `[rows, L * K * D]`, and the stamp as JSON in its
    metadata. The index has one line per row, in the same order: an object with `row`, `shape` (`[L,
    K, D]`) and the fields of `Row`, of which `columns` is optional. The sink writes it last: a row
    exists once the index lists it.
    """

    _complete = re.compile(r"vectors-(\d{5,})\.jsonl")

    def _write(self, number: int, rows: list[Row], values: NDArray[Any]) -> None:
        stamp, shape = self._stamp_and_shape
        # Only one entry: safetensors writes several in arbitrary order, and equal rows must give
        # equal bytes.
        data = save({"vec": values}, metadata={"stamp": json.dumps(stamp)})
        with self._whole_file(self._path(number, "safetensors")) as temporary:
            temporary.write_bytes(data)
        lines = (
            json.dumps({"row": at, "shape": shape} | row.to_dict()) + "\n"
            for at, row in enumerate(rows)
        )
        with self._whole_file(self._path(number, "jsonl")) as temporary:
            temporary.write_bytes("".join(lines).encode())

    def _part(self, number: int) -> Part:
        return read_shard(self._path(number, "jsonl"))

    def _paths(self, number: int) -> list[Path]:
        return [self._path(number, suffix) for suffix in ("safetensors", "jsonl")]

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"vectors-{number:05d}.{suffix}"
