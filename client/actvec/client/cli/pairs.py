"""What `similarity` and `csv` share: vectors raw and centered, and word of what is missing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import click

from actvec.client.analysis.paired import PairedVectors, Selection, paired_vectors
from actvec.client.cli.foreign import say
from actvec.client.cli.progress import show_progress
from actvec.client.cli.server import Connect
from actvec.client.cli.settings import Asked
from actvec.client.documents import Columns, open_documents
from actvec.client.records.means import ENOUGH_DOCUMENTS, CorpusMean
from actvec.client.records.vectors import Document, Failure, Result, Vector
from actvec.client.samples import sample_corpus


def documents_or_samples(source: Path | None, columns: Columns) -> Iterable[Document | Failure]:
    """The documents of INPUT, or the sample corpus if there is none.

    Raises:
        click.UsageError: columns are named, and there is no INPUT to have them.
        UnsupportedInput: INPUT cannot be read, or does not have the columns.
    """
    if source is not None:
        return open_documents(source, columns=columns)
    refuse_columns(columns)
    return sample_corpus()


def refuse_columns(columns: Columns) -> None:
    """See that no columns are named, if there is no INPUT to have them.

    Raises:
        click.UsageError: some are.
    """
    if columns != Columns():
        raise click.UsageError("--column, --id-column and --keep are for an INPUT")


def pair_up(server: Connect, selection: Selection, asked: Asked) -> PairedVectors:
    """The vectors of a selection, with progress on standard error.

    Raises:
        ActvecError: there is no such mean, no server answers, or it refused.
    """
    with ExitStack() as stack:
        client = stack.enter_context(server.connect())
        on_result = None
        # Two texts need no progress bar.
        if len(selection.documents) > 2:
            calls = 1 if asked.settings.center is None else 2
            on_result = stack.enter_context(_counting(calls * len(selection.documents)))
        return paired_vectors(client, selection.documents, asked.of(client), on_result=on_result)


def tell_mean(mean: CorpusMean) -> None:
    """Report on standard error which mean was subtracted, and if it is of too few documents."""
    say(f"Centered by {mean}.", err=True)
    warn_of_few(mean)


def warn_of_few(mean: CorpusMean) -> None:
    """Warn on standard error if a mean is of too few documents."""
    if mean.is_sparse:
        say(
            f"Warning: {mean.name} has {mean.documents_per_position:.1f} documents per position."
            f" Below {ENOUGH_DOCUMENTS}, a mean follows its own few documents; use one of a larger"
            " corpus.",
            err=True,
        )


@contextmanager
def _counting(total: int) -> Iterator[Callable[[Result], None]]:
    """Progress of `total` results; call what it yields with each."""
    done = tokens = 0
    with show_progress() as progress:

        def count(result: Result) -> None:
            nonlocal done, tokens
            done += 1
            tokens += result.tokens if isinstance(result, Vector) else 0
            progress.update(done, total, lambda: f"{done:,}/{total:,} vectors of {tokens:,} tokens")

        yield count


def failures_of(selection: Selection, pairs: PairedVectors) -> list[Failure]:
    """Documents that could not be read and those without a vector, in the order of the source."""
    indices = selection.indices
    without = (replace(failure, index=indices[failure.index]) for failure in pairs.failures)
    return sorted([*selection.failures, *without], key=lambda failure: failure.index)


def tell_gaps(selection: Selection, pairs: PairedVectors) -> None:
    """Report on standard error the skipped documents, the mean, and vectors of cut documents."""
    if selection.left_out:
        say(
            f"Took the first {len(selection.documents):,} documents and skipped "
            f"{selection.left_out:,}; --limit takes more.",
            err=True,
        )
    if pairs.mean is not None:
        tell_mean(pairs.mean)
    if shortened := pairs.shortened:
        tell_shortened(len(shortened), len(pairs.raw), f", for example {shortened[0]!r}")


def tell_shortened(count: int, total: int, example: str = "") -> None:
    """Report on standard error how many documents are longer than the mean."""
    say(
        "Longer than the corpus mean, so centered over their last tokens only (tokens_used):"
        f" {count:,} of {total:,} documents{example}",
        err=True,
    )
