"""What `similarity` and `csv` share: vectors raw and centered, and word of what is missing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from actvec.client.analysis.paired import PairedVectors, Selection, paired_vectors
from actvec.client.cli.printing import note
from actvec.client.cli.progress import show_progress
from actvec.client.cli.server import Connect
from actvec.client.cli.settings import Asked
from actvec.client.records.means import ENOUGH_DOCUMENTS, CorpusMean
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Result, Vector


def pair_up(server: Connect, selection: Selection, asked: Asked[VectorSettings]) -> PairedVectors:
    """The vectors of a selection, with progress on standard error.

    Its failures are all documents without a vector, with their numbers in the source: those that
    could not be read, too.

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
        pairs = paired_vectors(client, selection.documents, asked.of(client), on_result=on_result)
    indices = selection.indices
    without = (replace(failure, index=indices[failure.index]) for failure in pairs.failures)
    failures = sorted([*selection.failures, *without], key=lambda failure: failure.index)
    return replace(pairs, failures=tuple(failures))


def tell_mean(mean: CorpusMean) -> None:
    """Report on standard error which mean was subtracted, and if it is of too few documents."""
    note(f"Centered by {mean}.")
    warn_of_few(mean)


def warn_of_few(mean: CorpusMean) -> None:
    """Warn on standard error if a mean is of too few documents."""
    if mean.is_sparse:
        note(
            f"Warning: {mean.name} has {mean.documents_per_position:.1f} documents per position."
            f" Below {ENOUGH_DOCUMENTS}, a mean follows its own few documents; use one of a larger"
            " corpus."
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


def tell_gaps(selection: Selection, pairs: PairedVectors) -> None:
    """Report on standard error the skipped documents, the mean, and vectors of cut documents."""
    if selection.left_out:
        note(
            f"Took the first {len(selection.documents):,} documents and skipped "
            f"{selection.left_out:,}; --limit takes more."
        )
    if pairs.mean is not None:
        tell_mean(pairs.mean)
    if shortened := pairs.shortened:
        tell_shortened(len(shortened), len(pairs.raw), f", for example {shortened[0]!r}")


def tell_shortened(count: int, total: int, example: str = "") -> None:
    """Report on standard error how many documents are longer than the mean."""
    note(
        "Longer than the corpus mean, so centered over their last tokens only (tokens_used):"
        f" {count:,} of {total:,} documents{example}"
    )
