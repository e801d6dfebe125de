"""Times that a caller gives, in seconds."""

import math
from dataclasses import dataclass
from numbers import Real

# No limit of a year or more is ever reached, and gRPC takes a much longer one for one that is past.
_A_YEAR = 366 * 86_400.0


@dataclass
class TimeLeft:
    """The time that a method of a client has left, over all the calls that it makes.

    Attributes:
        seconds: May be infinite. A call takes from it what it used.
    """

    seconds: float


def checked_seconds(name: str, seconds: object, *, zero: bool = False) -> float:
    """A limit as a number, infinite for none.

    Args:
        name: What the caller calls it, for errors.
        seconds: As it was given; None, infinity and a year or more are no limit.
        zero: Whether it may be 0.

    Raises:
        TypeError: it is neither a number nor None.
        ValueError: it is negative, NaN, or a 0 that `zero` does not allow.
    """
    if seconds is None:
        return math.inf
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise TypeError(
            f"{name} is a number of seconds, or None for no limit, not {type(seconds).__name__}"
        )
    try:
        number = float(seconds)
    except OverflowError as error:
        raise ValueError(f"{name} is too large for a number; give None for no limit") from error
    if not (number > 0 or (zero and number == 0)):
        least = "0 or more" if zero else "more than 0"
        raise ValueError(f"{name} is {number:g}; give {least} seconds, or None for no limit")
    return number if number < _A_YEAR else math.inf
