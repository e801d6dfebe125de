"""How a long job is going: a bar on a terminal, a line now and then in a log.

Rates are shown in tokens, since documents differ in length, and the time that is left is reckoned
from the bytes of the input, for the same reason.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from actvec.client.bulk.progress import JobProgress
from actvec.client.means import MeanProgress

# Seconds between lines in a log.
_LINE_EVERY = 10.0


def describe(progress: JobProgress) -> str:
    """What a job has done, in words."""
    vectors = "1 vector" if progress.vectors == 1 else f"{progress.vectors:,} vectors"
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    resumed = progress.resumed_vectors + progress.resumed_failed
    before = f" ({resumed:,} documents were there already)" if resumed else ""
    return (
        f"{vectors} of {progress.tokens:,} tokens{failed}{before} in"
        f" {progress.seconds:.1f} s: {progress.documents_per_second:,.1f} documents/s,"
        f" {progress.tokens_per_second:,.0f} tokens/s"
    )


def duration(seconds: float) -> str:
    """A time, as `H:MM:SS`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Display(Protocol):
    """Is told after each document."""

    def update(self, progress: JobProgress) -> None:
        """Show it, or not yet."""


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY

    def update(self, progress: JobProgress) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_EVERY
        done = "" if progress.fraction is None else f"{progress.fraction:.1%}: "
        left = progress.seconds_left
        rest = "" if left is None else f"; {duration(left)} left"
        click.echo(f"{done}{describe(progress)}{rest}", err=True)


@contextmanager
def show_progress() -> Iterator[Display]:
    """Progress of vectors on standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with _bar() as show:

        class Bar:
            def update(self, progress: JobProgress) -> None:
                failed = f", {progress.failed:,} failed" if progress.failed else ""
                left = progress.seconds_left
                show(
                    progress.done_bytes,
                    progress.input_bytes,
                    f"{progress.documents:,} documents{failed}, {progress.tokens:,} tokens,"
                    f" {progress.tokens_per_second:,.0f}/s",
                    "" if left is None else f"{duration(left)} left",
                )

        yield Bar()


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
            click.echo(f"resuming after document {progress.committed:,}", err=True)
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
    with _bar() as show:

        class Bar:
            def update(self, progress: MeanProgress) -> None:
                documents = progress.documents + progress.skipped
                of_all = "" if total is None else f"/{total:,}"
                show(
                    documents,
                    total,
                    f"{documents:,}{of_all} documents, {progress.tokens:,} tokens,"
                    f" {progress.tokens_per_second:,.0f}/s",
                    "",
                )

        yield Bar()


@contextmanager
def _bar() -> Iterator[Callable[[int, int | None, str, str], None]]:
    """A bar; call what it yields with how much is done, of how much, and two texts beside it."""
    # rich takes longer to import than most calls take to be answered.
    from rich import console, progress  # noqa: PLC0415

    columns = (
        progress.SpinnerColumn(),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[said]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[left]}"),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as display:
        task = display.add_task("", total=None, said="", left="")
        yield lambda done, total, said, left: display.update(
            task, completed=done, total=total, said=said, left=left
        )
