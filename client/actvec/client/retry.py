"""How often and how long to try again."""

import random
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Pauses that double from one attempt to the next, each shortened at random.

    The randomness keeps many clients from coming back in step after a server's restart.

    Attributes:
        initial: Seconds of the first pause, at most.
        maximum: Seconds of any pause, at most.
    """

    initial: float = 0.1
    maximum: float = 10.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after this many failures in a row (1 or more)."""
        longest = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 32))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


class Patience:
    """Says how long to wait after a break, and when to give up for want of progress."""

    def __init__(self, backoff: Backoff, retry_for: float) -> None:
        """`retry_for`: seconds from the first break without progress since to giving up."""
        self._backoff = backoff
        self._retry_for = retry_for
        self._failures = 0
        self._since = 0.0

    def progress(self) -> None:
        """Something was achieved: start afresh at the next break."""
        self._failures = 0

    def pause(self) -> float | None:
        """Seconds to wait after another break; None to give up."""
        now = time.monotonic()
        if not self._failures:
            self._since = now
        self._failures += 1
        remaining = self._since + self._retry_for - now
        if remaining <= 0:
            return None
        return min(self._backoff.pause(self._failures), remaining)
