"""The file of a corpus mean: safetensors, readable by existing tools.

Such tools read `corpus_mean` `[D, max_tokens]` float32 (column `j` is distance `j` from the end)
and `counts` `[max_tokens]` int64. Ours add `sums` `[max_tokens, D]` float64, so that means merge
exactly, and with variance `corpus_variance` `[D, max_tokens]` float32 and `square_sums`. Separate
layers add a leading axis: `corpus_mean` `[L, D, max_tokens]`, `sums` `[L, max_tokens, D]`. The
metadata key `actvec` holds the mean's record.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from actvec.pooling import MeanAccumulator
from actvec.server.errors import InputError
from actvec.server.means.record import MeanRecord
from actvec.server.means.record_json import decode_record, encode_record
from actvec.server.means.views import deserialize, metadata

_METADATA = "actvec"

# The tensors to read, whatever else a file holds, with their dtypes in our files; and the dtypes of
# numpy.
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

# The most documents that a mean may claim: more than anybody has, and no sum of counts overflows.
MOST_DOCUMENTS = 1 << 40


@dataclass(frozen=True, eq=False)
class MeanTensors:
    """The contents of a mean's file.

    Attributes:
        mean: `[max_tokens, D]` float32, by distance from the end, or `[L, max_tokens, D]` for
            separate layers.
        counts: Documents behind each position, int64 `[max_tokens]`; None if a mean made elsewhere
            lacks them.
        accumulator: The exact sums; None for a mean made elsewhere.
        record: The file's own record; empty for a mean made elsewhere.
        variance: The file's `corpus_variance`, unchecked; None without one.
    """

    mean: NDArray[np.float32]
    counts: NDArray[np.int64] | None
    accumulator: MeanAccumulator | None
    record: MeanRecord
    variance: NDArray[Any] | None = None


def computed(accumulator: MeanAccumulator, record: MeanRecord) -> tuple[bytes, MeanRecord]:
    """Return the file of a computed mean, and its completed record.

    Args:
        accumulator: The sums of at least one document.
        record: The start of the record, without the fields that sums and file determine.
    """
    record = replace(
        record,
        documents=accumulator.documents,
        tokens=accumulator.tokens,
        d_model=accumulator.d_model,
        max_tokens=accumulator.max_tokens,
        has_counts=True,
        has_variance=accumulator.squares is not None,
    )
    content = encode(accumulator, record)
    return content, record.of_file(content)


def encode(accumulator: MeanAccumulator, record: MeanRecord) -> bytes:
    """Encode a mean's file. Its record omits what depends on these bytes: id, hash and size."""
    tensors: dict[str, NDArray[np.generic]] = {
        "corpus_mean": _turned(accumulator.mean()),
        "counts": accumulator.counts,
        "sums": accumulator.sums,
    }
    variance = accumulator.variance()
    if variance is not None and accumulator.squares is not None:
        tensors["corpus_variance"] = _turned(variance)
        tensors["square_sums"] = accumulator.squares
    content: bytes = save(tensors, metadata={_METADATA: json.dumps(encode_record(record))})
    return content


def decode(content: bytes) -> MeanTensors:
    """Decode a mean's file, ours or made elsewhere.

    Raises:
        InputError: it is not a safetensors file of this layout, or a number is not finite.
    """
    tensors = _tensors(content)
    mean = _mean(tensors.get("corpus_mean"))
    counts = _counts(tensors.get("counts"), mean.shape[-2])
    accumulator = None
    if counts is not None and "sums" in tensors:
        squares = _sums(tensors, "square_sums", mean) if "square_sums" in tensors else None
        accumulator = MeanAccumulator.from_sums(counts, _sums(tensors, "sums", mean), squares)
        with np.errstate(over="ignore"):  # a number beyond float32 differs anyway
            same = np.allclose(accumulator.mean(), mean, rtol=1e-5)
        if not same:
            raise InputError("file", "has sums and counts that do not match its corpus_mean")
    record = _record(content)
    return MeanTensors(mean, counts, accumulator, record, tensors.get("corpus_variance"))


def _tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the known tensors of a file.

    Raises:
        InputError: it is not a safetensors file, or a tensor has a dtype that numpy lacks.
    """
    try:
        found = dict(deserialize(content))
    except ValueError as error:
        raise InputError("file", f"is not a safetensors file: {error}") from error
    tensors = {}
    for name in _TENSORS.keys() & found.keys():
        dtype, shape, data = (found[name][key] for key in ("dtype", "shape", "data"))
        if dtype not in _DTYPES:
            raise InputError(
                "file", f"has {name} as {dtype} {shape}; convert it to {_TENSORS[name]}"
            )
        tensors[name] = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
    return tensors


def _mean(tensor: NDArray[Any] | None) -> NDArray[np.float32]:
    """`corpus_mean` as `[max_tokens, D]`, or `[L, max_tokens, D]`."""
    if (
        tensor is None
        or tensor.ndim not in {2, 3}
        or tensor.dtype != np.float32
        or 0 in tensor.shape
    ):
        found = "none" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
        raise InputError(
            "file",
            "needs a tensor corpus_mean, float32 [D, max_tokens], or [L, D, max_tokens] of "
            f"separate layers; it has {found}",
        )
    if not np.isfinite(tensor).all():
        raise InputError("file", "has a corpus_mean with numbers that are not finite")
    return _turned(tensor)


def _turned(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Swap the last two axes: files have D before the positions."""
    return np.ascontiguousarray(np.swapaxes(tensor, -1, -2))


def _counts(tensor: NDArray[Any] | None, positions: int) -> NDArray[np.int64] | None:
    """Check `counts`, if the file has them."""
    if tensor is None:
        return None
    if (
        tensor.dtype.kind not in "iu"
        or tensor.shape != (positions,)
        or tensor.min() < 1
        or tensor.max() > MOST_DOCUMENTS
        or (tensor[1:] > tensor[:-1]).any()
    ):
        raise InputError(
            "file",
            (
                f"has counts that are not {positions} integers from 1 to "
                f"{MOST_DOCUMENTS}, never increasing"
            ),
        )
    return tensor.astype(np.int64)


def _sums(
    tensors: dict[str, NDArray[np.generic]], name: str, mean: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Check a tensor of sums, in the shape of the mean."""
    sums: NDArray[Any] = tensors[name]
    if sums.dtype != np.float64 or sums.shape != mean.shape or not np.isfinite(sums).all():
        raise InputError(
            "file", f"has {name} that are not finite numbers, float64 {list(mean.shape)}"
        )
    return sums


def _record(content: bytes) -> MeanRecord:
    """Decode the record in a file's metadata."""
    try:
        return decode_record(json.loads(metadata(content).get(_METADATA, "{}")))
    except (ValueError, RecursionError) as error:
        raise InputError("file", f"has metadata that is not a record: {error}") from error
