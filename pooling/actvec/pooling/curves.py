"""The built-in pools, one factory each."""

import numpy as np
from numpy.typing import NDArray

from actvec.pooling.errors import EmptySpanError, NoSpanError, NoTokenError, PositionError
from actvec.pooling.numbers import shortest
from actvec.pooling.pool import Pool, PoolTokens, Weights

Row = NDArray[np.float64]

# The depths 0.023, 0.067 and 0.159 are the normal distribution's tail areas at -2, -1.5 and -1
# standard deviations, rounded to three decimals; the rounded values are the definition.
NAMED_DEPTHS = {"exp_977": 0.023, "exp_933": 0.067, "exp_841": 0.159}


def last_token() -> Pool:
    """All the weight on the last token."""
    return Pool("last", _one_token(-1))


def mean() -> Pool:
    """Equal weights on every token, BOS included."""
    return Pool("mean", lambda tokens: np.full(tokens.used, 1 / tokens.used))


def mean_no_bos() -> Pool:
    """Equal weights on every token except a BOS at the front."""

    def weigh(tokens: PoolTokens) -> Row:
        first = int(tokens.bos and not tokens.dropped)
        if first == tokens.used:
            raise NoTokenError("mean_no_bos")
        return _even(tokens.used, np.arange(first, tokens.used))

    return Pool("mean_no_bos", weigh)


def exponential(depth: float) -> Pool:
    """Weights that halve with every `depth * T` tokens of distance from the end.

    In a document without a beginning, half of the weight would lie in the last `depth * T` tokens.

        >>> exponential(0.25).weights(4).round(3)
        array([0.067, 0.133, 0.267, 0.533])

    Args:
        depth: Half-life as a fraction of the document, positive.
    """
    named = (name for name, known in NAMED_DEPTHS.items() if known == depth)
    name = next(named, f"exp:{shortest(depth)}")
    return Pool(name, lambda tokens: _halving(tokens, depth * tokens.used), depth=depth)


def exponential_tokens(half_life: float) -> Pool:
    """Weights that halve with every `half_life` tokens of distance from the end."""
    name = f"exp_tokens:{shortest(half_life)}"
    return Pool(name, lambda tokens: _halving(tokens, half_life))


def position(index: int) -> Pool:
    """All the weight on one token: 0 is the first, -1 the last."""
    return Pool(f"position:{index}", _one_token(index))


def span(name: str) -> Pool:
    """Equal weights on every token of the span."""

    def weigh(tokens: PoolTokens) -> Row:
        if name not in tokens.spans:
            raise NoSpanError(name, tokens.spans)
        every = tokens.spans[name] - tokens.dropped
        kept = every[every >= 0]
        if not len(kept):
            raise EmptySpanError(name, cut=len(every) > 0)
        return _even(tokens.used, kept)

    return Pool(f"span:{name}", weigh, spans=(name,))


def _one_token(index: int) -> Weights:
    def weigh(tokens: PoolTokens) -> Row:
        every = tokens.dropped + tokens.used
        if not -every <= index < every:
            raise PositionError(index, every)
        at = index + every * (index < 0) - tokens.dropped
        if at < 0:
            raise PositionError(index, tokens.used, dropped=True)
        return _even(tokens.used, np.array([at]))

    return weigh


def _halving(tokens: PoolTokens, half_life: float) -> Row:
    """Proportional to `2 ** (-j / half_life)`."""
    curve = np.exp2(-tokens.distances() / half_life)
    return np.asarray(curve / curve.sum())


def _even(count: int, tokens: NDArray[np.int64]) -> Row:
    row = np.zeros(count)
    row[tokens] = 1 / len(tokens)
    return row
