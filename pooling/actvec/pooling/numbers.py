"""Numbers in the names of pools: each float has one spelling."""

import re

import numpy as np

from actvec.pooling.errors import PoolError

_DECIMAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"0|-?[1-9]\d{0,8}")

# A half-life beyond these is `last` or `mean`.
SMALLEST, LARGEST = 1e-6, 1e6


def half_life(kind: str, written: str) -> float:
    """Parse the half-life of a pool.

    Raises:
        PoolError: it is not a number in range.
    """
    value = float(written) if len(written) < 64 and _DECIMAL.fullmatch(written) else 0.0
    if not SMALLEST <= value <= LARGEST:
        raise PoolError(
            f"pool '{kind}:{written[:64]}' needs a half-life from {shortest(SMALLEST)} to "
            f"{shortest(LARGEST)}, as in exp:0.1 (of the document) or exp_tokens:8"
        )
    return value


def index(kind: str, written: str) -> int:
    """Parse the position of a pool.

    Raises:
        PoolError: it is not a whole number.
    """
    if not _INTEGER.fullmatch(written):
        raise PoolError(
            f"pool '{kind}:{written[:64]}' needs a whole number: position:0 is the first "
            "token, position:-1 the last"
        )
    return int(written)


def shortest(value: float) -> str:
    """The shortest decimal that parses to the same float: `0.1`, `8`."""
    return np.format_float_positional(value, unique=True, trim="-")
