"""Directions on disk: safetensors with the stamp, and GGUF for repeng and llama.cpp."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.files import atomic_file, given_path
from actvec.client.findings.directions import Direction
from actvec.client.findings.files import check_shapes, read_tensors, write_tensors
from actvec.client.findings.separating import Separation
from actvec.client.records.settings import canonical_pool
from actvec.client.records.stamp import Stamp

_TENSORS = ("direction", "offset", "spread", "auc", "d_prime")

# Blocks between a hook and the output of the block that a control vector is added to.
_BACK = {"resid_post": 0, "resid_pre": 1}


def write_direction(path: str | Path, found: Direction) -> None:
    """Write a direction, whole or not at all, as safetensors.

    The tensors are `direction` `[L, K, D]` float32, `offset`, `auc` and `d_prime` `[L, K]` and
    `spread` `[2, L, K]` float64. The metadata has one entry, `actvec`: JSON with the stamp, the
    column, the labels, their counts and the number of folds.

    Raises:
        OSError: it cannot be written.
    """
    about = {
        "by": found.by,
        "positive": found.positive,
        "negative": found.negative,
        "counts": found.counts,
        "folds": found.separation.folds,
        "stamp": found.stamp.to_dict(),
    }
    tensors: dict[str, NDArray[Any]] = {
        "direction": found.direction,
        "offset": found.offset,
        "spread": found.spread,
        "auc": found.separation.auc,
        "d_prime": found.separation.d_prime,
    }
    write_tensors(path, about, tensors)


def read_direction(path: str | Path) -> Direction:
    """Read what `write_direction` wrote.

    Raises:
        UnsupportedInput: it is not there, or not a direction.
    """
    return read_tensors(path, _TENSORS, "direction", _direction)


def _direction(about: Any, tensors: dict[str, NDArray[Any]]) -> Direction:
    stamp = Stamp.parse(about["stamp"])
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_shapes(stamp, shapes | {"spread": shapes["spread"][1:]})
    return Direction(
        tensors["direction"],
        tensors["offset"],
        tensors["spread"],
        Separation(tensors["auc"], tensors["d_prime"], about["folds"]),
        about["by"],
        about["positive"],
        about["negative"],
        tuple(about["counts"]),
        stamp,
    )


def write_gguf(path: str | Path, found: Direction, pool: str | None = None) -> tuple[int, ...]:
    """Write a direction as a control vector, in the layout of repeng and llama.cpp.

    A tensor `direction.N` is added to the output of block N, from 0. A direction at `resid_post` of
    block N is that; at `resid_pre` it is the one of block N - 1. The layout has no vector for block
    0: that layer is not in the file. A strength of 1 adds the whole difference of the means.

    Args:
        path: The file.
        found: A direction of separate layers, or of one layer.
        pool: Which of its pools; may be None if there is one.

    Returns:
        The blocks whose output the vectors are added to.

    Raises:
        MissingExtra: gguf is not installed.
        InvalidArgument: the pool is not named, or unknown; the direction is at another hook, of the
            mean of several layers, or of block 0 alone.
        OSError: it cannot be written.
    """
    gguf = import_extra("gguf", "findings")
    stamp = found.stamp
    names = [one.name for one in stamp.pools]
    if pool is None and len(names) > 1:
        raise InvalidArgument(
            f"a control vector holds one pool; choose one of: {', '.join(names)}", setting="pools"
        )
    name = names[0] if pool is None else canonical_pool(pool)
    if name not in names:
        raise InvalidArgument(f"no pool {pool!r}; there are: {', '.join(names)}", setting="pools")
    if stamp.hook not in _BACK:
        raise InvalidArgument(
            f"a control vector is added to the residual stream, and the vectors are of"
            f" {stamp.hook}; make them at {' or '.join(_BACK)}"
        )
    if len(stamp.layers) != len(found.direction):
        raise InvalidArgument(
            "a control vector is added to single layers, and the direction is of the mean of layers"
            f" {', '.join(map(str, stamp.layers))}; make vectors of separate layers"
        )
    blocks = [layer - _BACK[stamp.hook] for layer in stamp.layers]
    rows = dict(zip(blocks, found.direction[:, names.index(name)], strict=True))
    kept = {block: row for block, row in rows.items() if block > 0}
    if not kept:
        raise InvalidArgument(
            "a control vector in GGUF cannot be added to the output of block 0; take later layers"
        )
    path = given_path(path)
    with atomic_file(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "controlvector")
        writer.add_string("controlvector.model_hint", stamp.model)
        writer.add_uint32("controlvector.layer_count", len(kept))
        for block, row in kept.items():
            writer.add_tensor(f"direction.{block}", np.ascontiguousarray(row, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return tuple(kept)
