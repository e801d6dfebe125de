"""The file of a corpus mean: safetensors, readable by existing tools.

`corpus_mean` `[D, max_tokens]` float32 (column `j` is distance `j` from the end) and `counts`
`[max_tokens]` int64 are what such tools read. Ours add `sums` `[max_tokens, D]` float64, so that
means merge exactly, and for `--variance` `corpus_variance` `[D, max_tokens]` float32 with
`square_sums`. The metadata key `actvec` holds the record of where it came from.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from numpy.typing import NDArray
from safetensors.numpy import save

from actvec.pooling import MeanAccumulator
from actvec.server.errors import RequestError
from actvec.server.means.views import deserialize
from actvec.v1.means_pb2 import CorpusMean

_METADATA = "actvec"

# The tensors that are read, of whatever else a file holds, with their dtypes in our files; and the
# dtypes that numpy has.
_TENSORS = {
    "corpus_mean": "F32",
    "counts": "I64",
    "sums": "F64",
    "corpus_variance": "F32",
    "square_sums": "F64",
}
_DTYPES = {
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "BOOL": "|b1",
}

# Documents that a mean may claim: more than anybody has, and no sum of counts overflows.
MOST_DOCUMENTS = 1 << 40


@dataclass(frozen=True, eq=False)
class MeanTensors:
    """What a mean's file holds.

    Attributes:
        mean: `[max_tokens, D]` float32, by distance from the end.
        counts: Documents behind each position, int64 `[max_tokens]`; None for a mean that was made
            elsewhere without them.
        accumulator: The exact sums; None for a mean made elsewhere.
        record: What the file says of itself; empty for a mean made elsewhere.
        variance: `corpus_variance` as the file has it, not checked; None without one.
    """

    mean: NDArray[np.float32]
    counts: NDArray[np.int64] | None
    accumulator: MeanAccumulator | None
    record: CorpusMean
    variance: NDArray[Any] | None = None


def encode(accumulator: MeanAccumulator, record: CorpusMean) -> bytes:
    """The bytes of a mean's file. What depends on these bytes (id, hash, size) is not in them."""
    tensors: dict[str, NDArray[np.generic]] = {
        "corpus_mean": np.ascontiguousarray(accumulator.mean().T),
        "counts": accumulator.counts,
        "sums": accumulator.sums,
    }
    variance = accumulator.variance()
    if variance is not None and accumulator.squares is not None:
        tensors["corpus_variance"] = np.ascontiguousarray(variance.T)
        tensors["square_sums"] = accumulator.squares
    content: bytes = save(tensors, metadata={_METADATA: MessageToJson(record, indent=None)})
    return content


def decode(content: bytes) -> MeanTensors:
    """The tensors of a mean's file, ours or made elsewhere.

    Raises:
        RequestError: this is no safetensors file of that layout, or a number is not finite.
    """
    tensors = _tensors(content)
    mean = _mean(tensors.get("corpus_mean"))
    counts = _counts(tensors.get("counts"), len(mean))
    accumulator = None
    if counts is not None and "sums" in tensors:
        squares = _sums(tensors, "square_sums", mean) if "square_sums" in tensors else None
        accumulator = MeanAccumulator.from_sums(counts, _sums(tensors, "sums", mean), squares)
        with np.errstate(over="ignore"):  # what is beyond float32 is not equal to it either
            same = np.allclose(accumulator.mean(), mean, rtol=1e-5)
        if not same:
            raise RequestError("chunk", "has sums and counts of another mean than its corpus_mean")
    record = _record(content)
    return MeanTensors(mean, counts, accumulator, record, tensors.get("corpus_variance"))


def _tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Those of a file's tensors that are read.

    Raises:
        RequestError: this is no safetensors file, or one of them has a dtype that numpy has not.
    """
    try:
        found = dict(deserialize(content))
    except ValueError as error:
        raise RequestError("chunk", f"is not a safetensors file: {error}") from error
    tensors = {}
    for name in _TENSORS.keys() & found.keys():
        dtype, shape, data = (found[name][key] for key in ("dtype", "shape", "data"))
        if dtype not in _DTYPES:
            raise RequestError(
                "chunk", f"has {name} as {dtype} {shape}; convert it to {_TENSORS[name]}"
            )
        tensors[name] = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
    return tensors


def _mean(tensor: NDArray[np.generic] | None) -> NDArray[np.float32]:
    """`corpus_mean` as `[max_tokens, D]`."""
    if tensor is None or tensor.ndim != 2 or tensor.dtype != np.float32 or 0 in tensor.shape:
        found = "none" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
        raise RequestError(
            "chunk", f"needs a tensor corpus_mean, float32 [D, max_tokens]; it has {found}"
        )
    if not np.isfinite(tensor).all():
        raise RequestError("chunk", "has a corpus_mean with numbers that are not finite")
    return np.ascontiguousarray(tensor.T)


def _counts(tensor: NDArray[Any] | None, positions: int) -> NDArray[np.int64] | None:
    """`counts`, where the file has them."""
    if tensor is None:
        return None
    if (
        tensor.dtype.kind not in "iu"
        or tensor.shape != (positions,)
        or tensor.min() < 1
        or tensor.max() > MOST_DOCUMENTS
        or (tensor[1:] > tensor[:-1]).any()
    ):
        raise RequestError(
            "chunk",
            f"has counts that are not {positions} whole numbers from 1 to {MOST_DOCUMENTS}, never "
            "increasing",
        )
    return tensor.astype(np.int64)


def _sums(
    tensors: dict[str, NDArray[np.generic]], name: str, mean: NDArray[np.float32]
) -> NDArray[np.float64]:
    """A tensor of sums `[max_tokens, D]`."""
    sums: NDArray[Any] = tensors[name]
    if sums.dtype != np.float64 or sums.shape != mean.shape or not np.isfinite(sums).all():
        raise RequestError(
            "chunk", f"has {name} that are not finite numbers, float64 {list(mean.shape)}"
        )
    return sums


def _record(content: bytes) -> CorpusMean:
    """The record in a file's metadata. safetensors begins with the header's length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    try:
        return Parse(metadata.get(_METADATA, "{}"), CorpusMean(), ignore_unknown_fields=True)
    except ParseError as error:
        raise RequestError("chunk", f"has metadata that is not a record: {error}") from error
