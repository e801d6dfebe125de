"""Where a server is: at an address, or wherever a search finds it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from actvec.client.channel import Target
from actvec.client.seconds import checked_seconds

# Told at each look for how many seconds a worker has been waited for, and what is known.
OnWait = Callable[[float, str], None]


@dataclass(frozen=True)
class Waking:
    """How long a server that is asleep is waited for.

    Attributes:
        seconds: After which it is given up.
        on_wait: Is told at each look for how long it has been, and what is known.
        every: Seconds between two looks at whether it is there.

    Raises:
        ValueError: a time is negative or NaN, or `every` is 0.
        TypeError: a time is no number.
    """

    seconds: float = 900.0
    on_wait: OnWait | None = None
    every: float = 1.0

    def __post_init__(self) -> None:
        # A limit that is infinite is none.
        seconds = checked_seconds("Waking.seconds", self.seconds, zero=True)
        object.__setattr__(self, "seconds", seconds)
        if math.isinf(checked_seconds("Waking.every", self.every)):
            raise ValueError("Waking.every is without end; give the seconds between two looks")

    def tell(self, seconds: float, what: str) -> None:
        """Tell whoever wants to know."""
        if self.on_wait is not None:
            self.on_wait(seconds, what)


class Place(Protocol):
    """Where a connection goes.

    Attributes:
        moves: Whether the server may be elsewhere after a connection to it broke.
    """

    moves: bool

    async def find(self) -> Target:
        """The address at which the server is now; may start it, and wait for it.

        Raises:
            ActvecError: it is nowhere.
        """


class FixedPlace:
    """An address that was given."""

    moves = False

    def __init__(self, target: Target) -> None:
        self._target = target

    def __str__(self) -> str:
        return str(self._target)

    async def find(self) -> Target:
        """The address."""
        return self._target
