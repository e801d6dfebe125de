"""Centering by a corpus mean, after pooling: it is linear, so the pooled mean suffices."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from actvec.pooling import Pool, PoolTokens, pooled_mean
from actvec.server.errors import MeanMismatchError
from actvec.server.means.format import MeanTensors
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.server.model.stamp import ModelStamp
from actvec.server.model.target import Target

Value = TypeVar("Value")

# Bytes of loaded means to keep, and per mean, bytes of its pooled means.
_MEAN_BYTES = 4 << 30
_POOLED_BYTES = 256 << 20


class Kept(Generic[Value]):
    """A cache of the values used last, up to a number of bytes; it always keeps the last one.

    Args:
        capacity: Bytes to keep.
        size: Returns the bytes of a value.
    """

    def __init__(self, capacity: int, size: Callable[[Value], int]) -> None:
        self._capacity = capacity
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it if the cache lacks it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._bytes += self._size(value)
            while self._bytes > self._capacity and len(self._values) > 1:
                self._bytes -= self._size(self._values.popitem(last=False)[1])
        return value


class LoadedMean:
    """A mean in memory.

    Attributes:
        record: Its record.
        counts: Documents behind each position, int64 `[max_tokens]`; None if unknown.
        means: Float64 `[L, max_tokens, D]`, by distance from the end; L is 1 for averaged layers.
    """

    def __init__(self, record: MeanRecord, tensors: MeanTensors) -> None:
        self.record = record
        self.counts = tensors.counts
        # Pooling needs float64, and the conversion takes longer than pooling does.
        means: NDArray[np.float64] = tensors.mean.astype(np.float64)
        self.means = means if means.ndim == 3 else means[None]
        self.pooled: Kept[NDArray[np.float32]] = Kept(_POOLED_BYTES, lambda kept: kept.nbytes)


class Centering:
    """A mean that centers the vectors of one target.

    Args:
        mean: The mean.
        target: The layers of the vectors, all of which the mean covers.

    Attributes:
        record: The mean's record.
        max_tokens: Positions of the mean; the server pools at most so many last tokens of a
            document.
    """

    def __init__(self, mean: LoadedMean, target: Target) -> None:
        self.record = mean.record
        self.max_tokens = mean.means.shape[1]
        self._mean = mean
        self._target = target
        stamp = mean.record.model
        # A mean of averaged layers has a single row, whichever layers it averages.
        self._layers = (
            [stamp.layers.index(layer) for layer in target.layers]
            if stamp is not None and stamp.separate_layers
            else [0]
        )

    def pooled(self, pools: tuple[Pool, ...], tokens: PoolTokens) -> NDArray[np.float32]:
        """Return the vector to subtract from a document's raw pools, `[L, K, D]` float32.

        Raises:
            DocumentError: the document does not fit a pool.
        """
        if any(pool.spans for pool in pools):
            return self._pool(pools, tokens)
        key = (self._target, pools, tokens.used, tokens.dropped, tokens.bos)
        return self._mean.pooled.get(key, lambda: self._pool(pools, tokens))

    def smallest_count(self, tokens: int) -> int:
        """Return the documents behind the rarest position used; 0 for a mean without counts."""
        counts = self._mean.counts
        return 0 if counts is None else int(counts[:tokens].min())

    def _pool(self, pools: tuple[Pool, ...], tokens: PoolTokens) -> NDArray[np.float32]:
        width = self._mean.means.shape[-1]
        # One layer at a time: to index several would copy all of them.
        layers = [pooled_mean(pools, self._mean.means[layer], tokens) for layer in self._layers]
        pooled = np.stack(layers).reshape(len(layers), len(pools), width)
        if self._target.separate or len(layers) == 1:
            return pooled
        average: NDArray[np.float64] = pooled.mean(0, keepdims=True, dtype=np.float64)
        return average.astype(np.float32)


class Centerings:
    """Finds means to center by, and caches those used last. Call it off the event loop."""

    def __init__(self, store: MeanStore, model: ModelStamp, d_model: int) -> None:
        self._store = store
        self._model = model
        self._d_model = d_model
        self._loaded: Kept[LoadedMean] = Kept(_MEAN_BYTES, lambda mean: mean.means.nbytes)

    def __call__(self, name: str, target: Target, *, prepend_bos: bool) -> Centering:
        """Return the centering by an id, a name, or `latest`: the newest mean that fits the target.

        Raises:
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it is of another model, other layers, or another choice of BOS.
            MeanCorruptError: its file was altered.
        """
        asked = replace(
            self._model,
            layers=target.layers,
            hook=target.hook,
            separate_layers=target.separate,
        )
        record = self._store.find(name, asked, lambda found: found.prepend_bos == prepend_bos)
        if reason := self._mismatch(record, asked, prepend_bos=prepend_bos):
            raise MeanMismatchError(f"mean {record.name} {reason}")
        mean = self._loaded.get(record.id, lambda: LoadedMean(record, self._store.load(record)))
        return Centering(mean, target)

    def _mismatch(self, record: MeanRecord, asked: ModelStamp, *, prepend_bos: bool) -> str:
        """Explain why a mean cannot center the requested vectors; empty if it can."""
        if record.d_model != self._d_model:
            return f"has states of {record.d_model} numbers; this model has {self._d_model}"
        # A mean made elsewhere may name no model; then only its width can be checked.
        if record.model is None:
            return (
                "is of averaged layers; the requested vectors have separate ones"
                if asked.separate_layers
                else ""
            )
        if not record.model.can_center(asked):
            return f"is of {record.model}; this server has {asked}"
        if record.prepend_bos != prepend_bos:
            return (
                f"was made with prepend_bos {record.prepend_bos}, but the request has "
                f"prepend_bos {prepend_bos}"
            )
        return ""
