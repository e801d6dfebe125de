"""How far something is that can be counted: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

# Seconds between lines in a log, and between changes of a bar.
_LINE_EVERY = 10.0
_BAR_EVERY = 0.1

# How many are done, and what to say of them.
Show = Callable[[int, Callable[[], str]], None]


@contextmanager
def show_count(total: int | None) -> Iterator[Show]:
    """Progress on standard error, of `total`, or None where that is not known.

    Call what it yields as often as you like: with how many are done, and a function that puts it
    in words, which is asked when it is time to show them.
    """
    if not sys.stderr.isatty():
        yield _paced(lambda _, words: click.echo(words, err=True), _LINE_EVERY)
        return
    from rich import console, progress  # noqa: PLC0415 - slow to import

    columns = (
        progress.SpinnerColumn(),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[words]}"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as display:
        task = display.add_task("", total=total, words="")
        yield _paced(
            lambda done, words: display.update(task, completed=done, words=words), _BAR_EVERY
        )


def _paced(show: Callable[[int, str], None], seconds: float) -> Show:
    """Show what it is told so many seconds after it has last shown something."""
    due = time.monotonic() + seconds

    def update(done: int, words: Callable[[], str]) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + seconds
            show(done, words())

    return update
