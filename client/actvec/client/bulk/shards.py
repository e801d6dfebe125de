"""Vectors in safetensors files of many rows, with an index beside each."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from actvec.client.bulk.numbered import NumberedSink
from actvec.client.bulk.sink import Row
from actvec.client.errors import DataLoss
from actvec.client.whole import write_whole


class ShardSink(NumberedSink):
    """`vectors-00000.safetensors`, with the index `vectors-00000.jsonl`, and so on.

    The safetensors file holds one tensor, `vec`, `[rows, K * D]`, and in its metadata the stamp as
    JSON. The index has a line for each row, in the same order: an object of `row` and the fields of
    `Row`. It is written last: a row is there when the index has it.
    """

    _complete = re.compile(r"vectors-(\d{5,})\.jsonl")

    def _write(
        self, number: int, rows: list[Row], values: NDArray[Any], stamp: dict[str, Any]
    ) -> None:
        data = save({"vec": values}, metadata={"stamp": json.dumps(stamp)})
        write_whole(self._path(number, "safetensors"), data)
        lines = (json.dumps({"row": at} | asdict(row)) + "\n" for at, row in enumerate(rows))
        write_whole(self._path(number, "jsonl"), "".join(lines).encode())

    def _read(self, number: int) -> tuple[list[Row], dict[str, Any]]:
        path, index = self._path(number, "safetensors"), self._path(number, "jsonl")
        try:
            rows = [Row.parse(json.loads(line)) for line in index.read_bytes().splitlines()]
            with safe_open(path, "numpy") as file:
                stamp = json.loads(file.metadata()["stamp"])
                written = file.get_slice("vec").get_shape()[0]
        except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
            raise DataLoss(f"{index} or its vectors cannot be read: {error}") from error
        if not rows or written < len(rows):
            raise DataLoss(f"{index} has {len(rows)} rows and {path} {written}")
        return rows, stamp

    def _read_values(self, number: int) -> NDArray[Any]:
        with safe_open(self._path(number, "safetensors"), "numpy") as file:
            values: NDArray[Any] = file.get_tensor("vec")
            return values

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"vectors-{number:05d}.{suffix}"
