"""Whitening: vectors whose dimensions vary alike and do not go together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.findings.blocks import row_blocks_of
from actvec.client.findings.files import check_shapes, read_tensors, write_tensors
from actvec.client.findings.stamps import check_stamps
from actvec.client.records.stamp import Stamp
from actvec.client.stored.vectors import StoredVectors

Method = Literal["pca", "zca"]

Rows = Callable[[], Iterator[NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class Whitening:
    """`(vector - mean) @ matrix`, for each layer and pool.

    Attributes:
        mean: `[L, K, D]` float64.
        matrix: `[L, K, D, M]` float64; M is D, or the number of components.
        shrinkage: `[L, K]` float64: the share of the covariance that was replaced by a multiple of
            the identity with the same trace.
        method: `pca`: the new dimensions are the principal components, the largest first. `zca`:
            they are the old ones, changed as little as possible.
        documents: How many vectors it was fitted to.
        stamp: What they depend on.
    """

    mean: NDArray[np.float64] = field(repr=False)
    matrix: NDArray[np.float64] = field(repr=False)
    shrinkage: NDArray[np.float64]
    method: Method
    documents: int
    stamp: Stamp = field(repr=False)

    def rows(self, rows: NDArray[np.floating], layer: int, pool: int) -> NDArray[np.float64]:
        """Whiten the vectors `[n, D]` of one layer and pool, by their places: `[n, M]`.

        Raises:
            InvalidArgument: they have another shape.
        """
        self._check(rows, "[n, D]", self.mean.shape[2:])
        whitened: NDArray[np.float64] = (rows - self.mean[layer, pool]) @ self.matrix[layer, pool]
        return whitened

    def array(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Whiten vectors `[n, L, K, D]`: `[n, L, K, M]`.

        Raises:
            InvalidArgument: they have another shape. `of` takes the part of some layers and pools.
        """
        self._check(vectors, "[n, L, K, D]", self.mean.shape)
        whitened: NDArray[np.float64] = np.einsum(
            "nlkd,lkdm->nlkm", vectors - self.mean, self.matrix, optimize=True
        )
        return whitened

    def _check(self, vectors: NDArray[np.floating], axes: str, shape: tuple[int, ...]) -> None:
        """Check a shape: numpy would repeat an axis of 1, and whiten a layer as if it were all."""
        if vectors.shape[1:] != shape:
            fitted = ", ".join(map(str, shape))
            raise InvalidArgument(
                f"the whitening takes vectors {axes} of [n, {fitted}], not {list(vectors.shape)}"
            )

    def of(self, stamp: Stamp) -> "Whitening":
        """The part of it that whitens vectors of a stamp.

        Raises:
            FailedPrecondition: it was fitted to vectors of another stamp, or has not all of these
                layers and pools.
        """
        layers = [at for at, one in enumerate(self.stamp.layers) if one in stamp.layers]
        pools = [self.stamp.pools.index(one) for one in stamp.pools if one in self.stamp.pools]
        kept = tuple(self.stamp.layers[at] for at in layers)
        check_stamps(self.stamp.pick(kept, pools), stamp, "the whitening")
        places = layers if stamp.separate_layers else [0]
        chosen = np.ix_(places, pools)
        return Whitening(
            self.mean[chosen],
            self.matrix[chosen],
            self.shrinkage[chosen],
            self.method,
            self.documents,
            self.stamp.pick(kept, pools),
        )


def whiten(
    vectors: StoredVectors,
    method: Method = "pca",
    *,
    shrinkage: float | None = None,
    components: int | None = None,
) -> Whitening:
    """Fit a whitening to each layer and pool.

    Memory holds one covariance `[D, D]` and the result, however many documents there are. The
    covariance divides by N.

    Examples:
        >>> vectors = load("vectors").pick([25], ["mean"])
        >>> fitted = whiten(vectors, "zca")
        >>> fitted.rows(vectors.rows(0, 0), 0, 0)  # [N, D], of unit covariance

    Args:
        vectors: From `load`.
        method: `pca` or `zca`.
        shrinkage: From 0 to 1: 0 takes the covariance as it is, which needs more documents than
            dimensions. Default: Ledoit and Wolf's estimate of the best.
        components: For `pca`: how many of the largest components are taken. Default: all.

    Raises:
        InvalidArgument: the method, the shrinkage or the components are out of range, or the
            documents vary in fewer dimensions than are to be whitened.
        DataLoss: a number is not finite.
    """
    if method not in get_args(Method):
        raise InvalidArgument(f"the method is pca or zca, not {method!r}", setting="method")
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise InvalidArgument(f"the shrinkage is from 0 to 1, not {shrinkage}", setting="shrinkage")
    layers, pools, width = vectors.shape
    if components is not None and method != "pca":
        raise InvalidArgument(f"{method} keeps all components; drop them", setting="components")
    if components is not None and not 1 <= components <= width:
        raise InvalidArgument(
            f"components are from 1 to the width of {width}, not {components}", setting="components"
        )
    kept = width if components is None else components
    mean = np.zeros((layers, pools, width))
    matrix = np.zeros((layers, pools, width, kept))
    shrunk = np.zeros((layers, pools))
    for layer, pool in np.ndindex(layers, pools):
        rows = partial(row_blocks_of, vectors, layer, pool)
        mean[layer, pool] = _mean(rows)
        covariance, estimate = _covariance(rows, mean[layer, pool])
        share = estimate if shrinkage is None else shrinkage
        level = np.trace(covariance) / width
        covariance *= 1 - share
        covariance[np.diag_indices(width)] += share * level
        matrix[layer, pool] = _matrix(covariance, method, kept, len(vectors))
        shrunk[layer, pool] = share
    return Whitening(mean, matrix, shrunk, method, len(vectors), vectors.stamp)


def write_whitening(path: str | Path, fitted: Whitening) -> None:
    """Write a whitening, whole or not at all, as safetensors.

    The tensors are `mean` `[L, K, D]`, `matrix` `[L, K, D, M]` and `shrinkage` `[L, K]`, float64:
    a whitened vector is `(vector - mean) @ matrix`. The metadata has one entry, `actvec`: JSON with
    the stamp, the method and the number of documents.

    Raises:
        OSError: it cannot be written.
    """
    about = {
        "method": fitted.method,
        "documents": fitted.documents,
        "stamp": fitted.stamp.to_dict(),
    }
    tensors = {"mean": fitted.mean, "matrix": fitted.matrix, "shrinkage": fitted.shrinkage}
    write_tensors(path, about, tensors)


def read_whitening(path: str | Path) -> Whitening:
    """Read what `write_whitening` wrote.

    Raises:
        UnsupportedInput: it is not there, or not a whitening.
    """
    return read_tensors(path, ("mean", "matrix", "shrinkage"), "whitening", _whitening)


def _whitening(about: Any, tensors: dict[str, NDArray[Any]]) -> Whitening:
    stamp = Stamp.parse(about["stamp"])
    mean, matrix = tensors["mean"], tensors["matrix"]
    check_shapes(stamp, {name: tensor.shape for name, tensor in tensors.items()})
    if matrix.shape[:-1] != mean.shape:
        raise ValueError(
            f"the matrix {matrix.shape} does not take vectors as the mean {mean.shape}"
        )
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("it has numbers that are not finite")
    return Whitening(**tensors, method=about["method"], documents=about["documents"], stamp=stamp)


def _mean(rows: Rows) -> NDArray[np.float64]:
    count, total = 0, np.float64(0)
    for block in rows():
        count += len(block)
        total = total + block.sum(axis=0, dtype=np.float64)
    mean: NDArray[np.float64] = np.asarray(total / count)
    return mean


def _covariance(rows: Rows, mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The covariance `[D, D]`, and the shrinkage that Ledoit and Wolf (2004) estimate for it."""
    width = len(mean)
    products, fourth, count = np.zeros((width, width)), 0.0, 0
    for block in rows():
        deviations = block - mean
        products += deviations.T @ deviations
        fourth += float((np.einsum("nd,nd->n", deviations, deviations) ** 2).sum())
        count += len(block)
    covariance = products / count
    squares = float((covariance**2).sum())
    distance = squares - np.trace(covariance) ** 2 / width
    error = (fourth / count - squares) / count
    return covariance, float(np.clip(error / distance, 0, 1)) if distance > 0 else 1.0


def _matrix(
    covariance: NDArray[np.float64], method: Method, kept: int, documents: int
) -> NDArray[np.float64]:
    width = len(covariance)
    values, axes = np.linalg.eigh(covariance)
    values, axes = values[::-1][:kept], axes[:, ::-1][:, :kept]
    if values[-1] <= values[0] * width * np.finfo(np.float64).eps:
        raise InvalidArgument(
            f"{documents:,} documents do not vary in {kept:,} of {width:,} dimensions; take a"
            " shrinkage above 0, or fewer components",
            setting="shrinkage",
        )
    # An axis may point either way; this one is the same on every machine.
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(kept)])
    scaled: NDArray[np.float64] = axes / np.sqrt(values)
    return scaled if method == "pca" else scaled @ axes.T
