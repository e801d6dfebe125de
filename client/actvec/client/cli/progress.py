"""How far a verb is, on standard error: a bar on a terminal, a line now and then in a log.

Rates are of tokens, since documents differ in length; the time that is left comes from the bytes of
the input, for the same reason.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actvec.client.bulk.progress import JobProgress
from actvec.client.cli.printing import note
from actvec.client.documents.reading import Reading
from actvec.client.records.means import MeanProgress

# Seconds between lines in a log, and between changes of a bar.
_LINE_EVERY = 10.0
_BAR_EVERY = 0.1


class ProgressDisplay:
    """Shows how much is done, as often as people can read it.

    Args:
        show: Shows how much is done, of how much (None if that is not known), and words.
        every: Seconds between two times.
        first_after: Seconds before the first time; None for `every`.
    """

    def __init__(
        self,
        show: Callable[[int, int | None, str], None],
        every: float,
        first_after: float | None = None,
    ) -> None:
        self._show = show
        self._every = every
        self._hidden: Callable[[], None] | None = None
        self._due = time.monotonic() + (every if first_after is None else first_after)

    def update(self, done: int, total: int | None, words: Callable[[], str]) -> None:
        """Show it, or not yet; may be called for each document."""
        self._hidden = lambda: self._show(done, total, words())
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every
            self.show_last()

    def show_last(self) -> None:
        """Show the last `update`, if it was not shown."""
        show, self._hidden = self._hidden, None
        if show is not None:
            show()


@contextmanager
def show_progress() -> Iterator[ProgressDisplay]:
    """Progress on standard error."""
    # None if it is closed.
    if not (sys.stderr and sys.stderr.isatty()):
        yield ProgressDisplay(lambda _done, _total, words: note(words), _LINE_EVERY)
        return
    # rich takes longer to import than most calls take to be answered.
    from rich import console, progress  # noqa: PLC0415

    columns = (
        progress.SpinnerColumn(),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[words]}", markup=False),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as display:
        task = display.add_task("", total=None, words="")
        bar = ProgressDisplay(
            lambda done, total, words: display.update(
                task, completed=done, total=total, words=words
            ),
            _BAR_EVERY,
        )
        yield bar
        bar.show_last()


def waiting_lines() -> Callable[[float, str], None]:
    """Reports that a server is waited for, at once and then now and then; see `Waking`."""
    progress = ProgressDisplay(lambda _done, _total, words: note(words), _LINE_EVERY, 0.0)
    return lambda seconds, what: progress.update(0, None, lambda: f"{what} ({seconds:.0f} s)")


def describe(progress: JobProgress) -> str:
    """A job that ended, in words."""
    vectors = "1 vector" if progress.vectors == 1 else f"{progress.vectors:,} vectors"
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    resumed = progress.resumed_vectors + progress.resumed_failed
    before = f" ({resumed:,} documents were there already)" if resumed else ""
    return (
        f"{vectors} of {progress.tokens:,} tokens{failed}{before} in"
        f" {progress.seconds:.1f} s: {progress.documents_per_second:,.1f} documents/s,"
        f" {progress.tokens_per_second:,.0f} tokens/s"
    )


def job_words(progress: JobProgress) -> str:
    """A job that runs, in words."""
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    return _running(f"{progress.documents:,} documents{failed}", progress, progress)


def mean_words(progress: MeanProgress, reading: Reading) -> str:
    """A mean that is computed, in words."""
    documents = f"{progress.documents + progress.skipped:,} documents"
    skipped = f"{progress.skipped:,} skipped, {progress.committed:,} durable"
    return _running(f"{documents}, {skipped}", progress, reading)


def _running(documents: str, progress: JobProgress | MeanProgress, reading: Reading) -> str:
    done = "" if reading.fraction is None else f"{reading.fraction:.1%}: "
    left = "" if (s := reading.seconds_left) is None else f"; {duration(s)} left"
    rate = f"{progress.tokens_per_second:,.0f} tokens/s"
    return f"{done}{documents}, {progress.tokens:,} tokens, {rate}{left}"


def duration(seconds: float) -> str:
    """A time, as `H:MM:SS`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
