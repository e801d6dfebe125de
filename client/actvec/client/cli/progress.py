"""How a long job is going: a bar on a terminal, a line now and then in a log.

Tokens are counted beside documents, since documents differ in length: the rate of tokens is steady,
and a time left that is reckoned from documents would be wrong.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import click

from actvec.client.means import MeanProgress

# Seconds between lines in a log.
_LINE_EVERY = 10.0


@dataclass
class Tally:
    """What a job has done so far.

    Attributes:
        vectors: Documents with a vector.
        failed: Documents without one.
        tokens: Tokens of the documents with a vector.
        started: When it began, in seconds of the monotonic clock.
    """

    vectors: int = 0
    failed: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def documents(self) -> int:
        """Documents with an outcome."""
        return self.vectors + self.failed

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        failed = f", {self.failed:,} failed" if self.failed else ""
        return (
            f"{self.vectors:,} vectors of {self.tokens:,} tokens{failed} in {seconds:.1f} s:"
            f" {self.documents / seconds:,.1f} documents/s, {self.tokens / seconds:,.0f} tokens/s"
        )


class Progress(Protocol):
    """Is told after each document."""

    def update(self, tally: Tally) -> None:
        """Show it, or not yet."""


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY

    def update(self, tally: Tally) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY
            click.echo(str(tally), err=True)


@contextmanager
def show_progress(total: int | None) -> Iterator[Progress]:
    """Progress on standard error; `total` documents, or None where that is not known."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with _bar(total) as show:

        class Bar:
            def update(self, tally: Tally) -> None:
                show(tally.documents, tally.tokens, tally.tokens / max(tally.seconds, 1e-9))

        yield Bar()


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[int, int, float], None]]:
    """A bar; call what it yields with documents, tokens and tokens a second."""
    # rich takes longer to import than most calls take to be answered.
    from rich import console, progress  # noqa: PLC0415

    columns = (
        progress.SpinnerColumn(),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(
            "documents, {task.fields[tokens]:,} tokens, {task.fields[rate]:,.0f}/s"
        ),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as display:
        task = display.add_task("", total=total, tokens=0, rate=0.0)
        yield lambda documents, tokens, rate: display.update(
            task, completed=documents, tokens=tokens, rate=rate
        )


class MeanProgressDisplay(Protocol):
    """Is told now and then how a mean is going."""

    def update(self, progress: MeanProgress) -> None:
        """Show it, or not yet."""


class _MeanLines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY
        self._opened = False

    def update(self, progress: MeanProgress) -> None:
        if not self._opened and progress.committed:
            click.echo(f"going on behind {progress.committed:,} documents", err=True)
        self._opened = True
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY
            click.echo(
                f"{progress.documents:,} documents of {progress.tokens:,} tokens,"
                f" {progress.skipped:,} skipped, {progress.committed:,} durable,"
                f" {progress.tokens_per_second:,.0f} tokens/s",
                err=True,
            )


@contextmanager
def show_mean_progress(total: int | None) -> Iterator[MeanProgressDisplay]:
    """Progress of a mean on standard error; `total` documents, or None where not known."""
    if not sys.stderr.isatty():
        yield _MeanLines()
        return
    with _bar(total) as show:

        class Bar:
            def update(self, progress: MeanProgress) -> None:
                documents = progress.documents + progress.skipped
                show(documents, progress.tokens, progress.tokens_per_second)

        yield Bar()
