"""Pools as people write them, and the register of kinds.

A pool is written `KIND` or `KIND:ARGUMENT`: `last`, `exp:0.1`, `span:answer`.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from actvec.pooling import curves
from actvec.pooling.errors import PoolError
from actvec.pooling.numbers import half_life, index
from actvec.pooling.pool import Pool

SPAN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Valid names of spans."""

PoolFactory = Callable[[str], Pool]
"""Makes a pool from the text after the colon, which is empty if there is none."""

_FACTORIES: dict[str, PoolFactory] = {}
_SHOWN = 80


def register_pool(kind: str, factory: PoolFactory) -> None:
    """Register a kind of pool under a name.

    Examples:
        >>> def first(_argument: str) -> Pool:
        ...     return Pool("first", lambda tokens: np.eye(1, tokens.used)[0])
        >>> register_pool("first", first)

    Args:
        kind: The text before the colon.
        factory: Makes the pool, whose name must be its canonical written form; raises `PoolError`
            for an argument that it does not accept.

    Raises:
        ValueError: the kind is registered already.
    """
    if kind in _FACTORIES:
        raise ValueError(f"there is a kind of pool {kind!r} already")
    _FACTORIES[kind] = factory


def pool_kinds() -> list[str]:
    """The registered kinds of pools."""
    return list(_FACTORIES)


def parse_pool(written: str) -> Pool:
    """Parse a written pool.

        >>> parse_pool("exp:0.067").name
        'exp_933'

    Raises:
        PoolError: there is no such pool.
    """
    kind, colon, argument = written.partition(":")
    if kind not in _FACTORIES or (colon and not argument):
        shown = written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."
        raise PoolError(
            f"no pool {shown!r}; there are last, mean, mean_no_bos, exp:0.1 (half-life, of the "
            "document), exp_tokens:8 (half-life, in tokens), position:0 (position:-1 is the last), "
            f"span:NAME; and by name {', '.join(curves.NAMED_DEPTHS)}{_others()}"
        )
    return _FACTORIES[kind](argument)


def parse_pools(written: Sequence[str]) -> tuple[Pool, ...]:
    """Parse the pools of a vector, in its order.

        >>> [pool.name for pool in parse_pools(["mean", "exp:0.067"])]
        ['mean', 'exp_933']

    Raises:
        PoolError: the list is empty, a pool is invalid, or one is named twice.
    """
    return distinct(map(parse_pool, written), written)


def distinct(pools: Iterable[Pool], written: Sequence[str]) -> tuple[Pool, ...]:
    """The same pools, checked to be distinct.

    Args:
        pools: One or more.
        written: The written form of each, for the error.

    Raises:
        PoolError: the list is empty, or a pool is named twice.
    """
    seen: dict[Pool, str] = {}
    for pool, form in zip(pools, written, strict=True):
        if pool in seen:
            raise PoolError(f"{form!r} is the same pool as {seen[pool]!r}; name each once")
        seen[pool] = form
    if not seen:
        raise PoolError("a vector has at least one pool")
    return tuple(seen)


def _others() -> str:
    return "".join(f", {kind}" for kind in _FACTORIES if kind not in _BUILT_IN)


def _plain(kind: str, pool: Pool) -> PoolFactory:
    """The factory of a pool without an argument."""

    def make(argument: str) -> Pool:
        if argument:
            raise PoolError(f"pool {kind!r} takes no argument, and is written with {argument!r}")
        return pool

    return make


def _span(name: str) -> Pool:
    if not SPAN_NAME.fullmatch(name):
        raise PoolError(
            f"pool 'span:{name[:_SHOWN]}' needs a span's name: 1 to 64 letters, digits, '_', '.' "
            "and '-', as in span:answer"
        )
    return curves.span(name)


for _pool in (curves.last_token(), curves.mean(), curves.mean_no_bos()):
    register_pool(_pool.name, _plain(_pool.name, _pool))
for _name, _depth in curves.NAMED_DEPTHS.items():
    register_pool(_name, _plain(_name, curves.exponential(_depth)))
register_pool("exp", lambda p: curves.exponential(half_life("exp", p)))
register_pool("exp_tokens", lambda h: curves.exponential_tokens(half_life("exp_tokens", h)))
register_pool("position", lambda i: curves.position(index("position", i)))
register_pool("span", _span)
_BUILT_IN = frozenset(_FACTORIES)
