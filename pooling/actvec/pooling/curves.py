"""Pooling curves: the weight of a token by its distance from the end of its document.

A pool is one row of the pooling matrix `W [K, T]`. Its weights depend on the number of tokens `T`
and on nothing else, are computed in float64, sum to 1, and are rounded to float32 once, at the end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LastToken:
    """All of the weight on the last token."""

    name: str = "last"

    @property
    def depth(self) -> float:
        """0: the half-life of a weight that is gone after one token."""
        return 0.0

    def weights(self, tokens: int) -> NDArray[np.float64]:
        """Weights `[T]` in document order, summing to 1.

        Raises:
            ValueError: `tokens` is less than 1.
        """
        _distances(tokens)
        row = np.zeros(tokens)
        row[-1] = 1.0
        return row


@dataclass(frozen=True)
class Exponential:
    """Weights that halve with every `depth * T` tokens of distance from the end.

    `depth` is a half-life as a fraction of the document: half of the weight of an endless document
    would lie in its last `depth * T` tokens.
    """

    name: str
    depth: float

    def weights(self, tokens: int) -> NDArray[np.float64]:
        """Weights `[T]` in document order: proportional to `2 ** (-j / (depth * T))`, sum 1.

        Raises:
            ValueError: `tokens` is less than 1.
        """
        curve = np.exp2(-_distances(tokens) / (self.depth * tokens))
        return np.asarray(curve / curve.sum())


Pool = LastToken | Exponential


def _distances(tokens: int) -> NDArray[np.float64]:
    """Distances `[T]` of the tokens, in document order, from the end: `T - 1, ..., 1, 0`."""
    if tokens < 1:
        raise ValueError(f"a document has at least one token, not {tokens}")
    return np.arange(tokens - 1, -1, -1, dtype=np.float64)
