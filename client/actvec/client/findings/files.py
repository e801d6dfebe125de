"""Files of what was computed: safetensors with one entry of metadata, `actvec`, as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import UnsupportedInput
from actvec.client.files import given_path, write_atomic
from actvec.client.records.stamp import Stamp

Made = TypeVar("Made")


def check_shapes(stamp: Stamp, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Check that tensors begin with the layers and pools of a stamp.

    Args:
        stamp: The stamp.
        tensors: Their shapes `[L, K, ...]`, by name.

    Raises:
        ValueError: one does not.
    """
    for name, shape in tensors.items():
        if shape[:2] != stamp.shape:
            raise ValueError(f"{name} is {shape}, and the stamp has {stamp.shape} layers and pools")


def write_tensors(
    path: str | Path, about: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """Write tensors, and what there is to tell about them, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.numpy import save  # noqa: PLC0415 - slow to import

    # One entry: safetensors writes several in no order, and the same tensors are the same bytes.
    content = save(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        metadata={"actvec": json.dumps(about)},
    )
    write_atomic(given_path(path), content)


def read_tensors(
    path: str | Path,
    names: Sequence[str],
    kind: str,
    make: Callable[[Any, dict[str, NDArray[Any]]], Made],
) -> Made:
    """Read what `write_tensors` wrote.

    Args:
        path: The file.
        names: The tensors that it has.
        kind: Names in an error what the file ought to be.
        make: Makes it of the metadata and the tensors; it raises ValueError, LookupError or
            TypeError if they do not fit.

    Raises:
        UnsupportedInput: it is not there, or not such a file.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - slow to import

    try:
        with safe_open(given_path(path), "numpy") as file:
            about = json.loads(file.metadata()["actvec"])
            return make(about, {name: file.get_tensor(name) for name in names})
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise UnsupportedInput(f"{path} is not the file of a {kind}: {error}") from error
