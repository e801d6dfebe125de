"""Tells people that a server is waited for."""

import time

import click

# Seconds between two lines.
_LINE_EVERY = 10.0


class WaitingLines:
    """Writes a line to standard error at once, and then now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, seconds: float, what: str) -> None:
        """See `place.OnWait`."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY
            click.echo(f"{what} ({seconds:.0f} s)", err=True)
