"""What `similarity` and `csv` share: vectors raw and centred, and word of what is missing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import click

from actvec.client.cli.counting import show_count
from actvec.client.cli.options import Server
from actvec.client.paired import PairedVectors, Selection, paired_vectors
from actvec.client.vectors import Failure, Mode, Result, Truncation, Vector


def pair_up(
    server: Server,
    selection: Selection,
    *,
    mode: Mode,
    center: str | None,
    truncation: Truncation,
) -> PairedVectors:
    """The vectors of a selection, with progress on standard error.

    Raises:
        ActvecError: there is no such mean, no server answers, or it refused.
    """
    with ExitStack() as stack:
        client = stack.enter_context(server.connect())
        on_result = None
        # Of two texts a bar would only stand in the way.
        if len(selection.documents) > 2:
            calls = 1 if center is None else 2
            on_result = stack.enter_context(_counting(calls * len(selection.documents)))
        return paired_vectors(
            client,
            selection.documents,
            mode=mode,
            center=center,
            truncation=truncation,
            on_result=on_result,
        )


@contextmanager
def _counting(total: int) -> Iterator[Callable[[Result], None]]:
    """Progress of `total` results; call what it yields with each."""
    done = tokens = 0
    with show_count(total) as show:

        def count(result: Result) -> None:
            nonlocal done, tokens
            done += 1
            tokens += result.tokens if isinstance(result, Vector) else 0
            show(done, lambda: f"{done:,}/{total:,} vectors of {tokens:,} tokens")

        yield count


def failures_of(selection: Selection, pairs: PairedVectors) -> list[Failure]:
    """Documents that could not be read and those without a vector, in the order of the source."""
    indices = selection.indices
    without = (replace(failure, index=indices[failure.index]) for failure in pairs.failures)
    return sorted([*selection.failures, *without], key=lambda failure: failure.index)


def tell_gaps(selection: Selection, pairs: PairedVectors) -> None:
    """Say on standard error what was left out, and which centred vectors saw less of the text."""
    if selection.left_out:
        click.echo(
            f"The first {len(selection.documents) + len(selection.failures):,} documents were"
            f" taken, {selection.left_out:,} more left out; --limit takes more.",
            err=True,
        )
    shortened = pairs.shortened
    if shortened:
        click.echo(
            "Longer than the corpus mean, and centred over their last tokens only:"
            f" {len(shortened):,} of {len(pairs.raw):,} documents, for example {shortened[0]!a}.",
            err=True,
        )
