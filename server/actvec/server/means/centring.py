"""Centring by a corpus mean, after pooling: it is linear, so the pooled mean is all it takes."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from actvec.pooling import pooled_mean
from actvec.server.errors import MeanMismatchError
from actvec.server.means.format import MeanTensors
from actvec.server.means.merging import same_states
from actvec.server.means.store import MeanStore
from actvec.server.pooler import Pools
from actvec.v1.means_pb2 import CorpusMean
from actvec.v1.vectors_pb2 import ModelStamp


class Centring:
    """Subtracts a mean's pools from a document's.

    Attributes:
        record: The mean's record.
        max_tokens: Positions of the mean: only so many last tokens of a document are pooled.
    """

    def __init__(self, record: CorpusMean, tensors: MeanTensors) -> None:
        self.record = record
        self.max_tokens = len(tensors.mean)
        # Pooling takes float64, and converting takes longer than pooling.
        self._mean: NDArray[np.float64] = tensors.mean.astype(np.float64)
        self._counts = tensors.counts
        # Of every length, [K, D] float32 each: there are no more of them than positions.
        self._pooled = lru_cache(self.max_tokens)(self._pool)

    def __call__(self, pools: Pools, tokens: int) -> Pools:
        """The centred pools `[K, D]` of a document whose last `tokens` tokens were pooled."""
        return pools - self._pooled(tokens)

    def smallest_count(self, tokens: int) -> int:
        """Documents behind the least known position used; 0 for a mean without counts."""
        return 0 if self._counts is None else int(self._counts[:tokens].min())

    def _pool(self, tokens: int) -> Pools:
        return pooled_mean("long", self._mean, tokens).reshape(-1, self._mean.shape[1])


class Centrings:
    """Finds means to centre by, and keeps the last few loaded. Call it off the event loop."""

    def __init__(self, store: MeanStore, model: ModelStamp, d_model: int) -> None:
        self._store = store
        self._model = model
        self._d_model = d_model
        self._load = lru_cache(4)(self._load_by_id)

    def __call__(self, name: str, *, prepend_bos: bool) -> Centring:
        """The centring by an id, a name or `latest`.

        Raises:
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it is of another model, other layers, or another choice of BOS.
            MeanCorruptError: its file was altered.
        """
        record = self._store.find(name, self._model)
        if record.d_model != self._d_model:
            raise MeanMismatchError(
                f"mean {record.name} has states of {record.d_model} numbers; this model has "
                f"{self._d_model}"
            )
        # A mean made elsewhere may name no model; then the width is all that can be checked.
        if record.HasField("model"):
            if not same_states(record.model, self._model):
                raise MeanMismatchError(
                    f"mean {record.name} is of {_states(record.model)}; this server has "
                    f"{_states(self._model)}"
                )
            if record.prepend_bos != prepend_bos:
                raise MeanMismatchError(
                    f"mean {record.name} was made with prepend_bos {record.prepend_bos}; "
                    f"settings.prepend_bos is {prepend_bos}"
                )
        return self._load(record.id)

    def _load_by_id(self, mean: str) -> Centring:
        record = self._store.find(mean, self._model)
        return Centring(record, self._store.load(record))


def _states(model: ModelStamp) -> str:
    layers = ",".join(map(str, model.layers))
    return f"{model.model} ({model.revision[:15]}), {model.hook} of layers {layers}"
