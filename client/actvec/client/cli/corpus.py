"""`actvec corpus`: fetch a corpus, and look at it."""

from pathlib import Path

import click

from actvec.client.cli.commands import Verbs
from actvec.client.cli.options import Input, json_option, reads_input
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.printing import note, print_json, print_rich, say, shown
from actvec.client.cli.progress import show_progress
from actvec.client.corpora import (
    Counts,
    DataFiles,
    Fetched,
    HubDataset,
    Inspection,
    Sample,
    TokenCounter,
    WordLimits,
    fetch_corpus,
    inspect_documents,
)
from actvec.client.corpora.display import inspection_table
from actvec.client.corpora.sources import Source


@click.group(cls=Verbs)
def corpus() -> None:
    """Fetch a corpus from a dataset, or inspect one. You need no server."""


@corpus.command
@click.option(
    "--dataset",
    metavar="ID|FOLDER",
    help="A dataset of the Hugging Face hub, or a folder with the same layout.",
)
@click.option("--config", help="The dataset's configuration, for example en.")
@click.option("--split", help="The dataset's split.  [default: train]")
@click.option("--revision", help="The dataset's branch, tag or commit.  [default: the newest]")
@click.option(
    "--files",
    metavar="GLOB",
    multiple=True,
    help="Read these files instead: JSON lines (.json, .jsonl, also .gz), CSV or Parquet, by name"
    " or URL. Quote wildcards; repeat the option for more files.",
)
@click.option("--column", help="The column that holds the texts.  [default: text]")
@click.option(
    "--min-words",
    type=click.IntRange(min=1),
    default=1,
    help="Accept texts with at least this many words.",
)
@click.option(
    "--max-words", type=click.IntRange(min=1), help="Accept texts with at most this many words."
)
@click.option(
    "--num-samples",
    type=click.IntRange(min=1),
    help="The number of documents to write.  [default: all accepted ones; required with --dataset]",
)
@click.option("--seed", type=int, default=0, help="The seed of the sample.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    help="Read this many accepted documents, and take the sample from them.  [default: 4 times"
    " --num-samples]",
)
@click.option(
    "--save-local",
    "path",
    metavar="FILE",
    type=AnyPath(dir_okay=False),
    required=True,
    help="The file to write: .jsonl, .jsonl.gz or .parquet.",
)
@json_option
def fetch(
    *,
    dataset: str | None,
    config: str | None,
    split: str | None,
    revision: str | None,
    files: tuple[str, ...],
    column: str | None,
    min_words: int,
    max_words: int | None,
    num_samples: int | None,
    seed: int,
    candidates: int | None,
    path: Path,
    as_json: bool,
) -> None:
    """Write a sample of a dataset's texts to FILE.

    The same options give the same file, and an existing file is kept. If a fetch broke, the same
    command resumes it. Rows without a text are counted, and the first are named. The exit code is 1
    if the dataset holds fewer documents than you asked for.
    """
    if (dataset is not None) == bool(files):
        raise click.UsageError("give one of --dataset and --files")
    if dataset is None and (config or split or revision):
        raise click.UsageError("--config, --split and --revision need a --dataset")
    source: Source
    if dataset is not None:
        if num_samples is None:
            raise click.UsageError("--dataset needs --num-samples: a dataset can be very large")
        source = HubDataset(dataset, config, split or "train", revision, column or "text")
    else:
        source = DataFiles(files, column or "text")
    try:
        words, sample = WordLimits(min_words, max_words), Sample(num_samples, seed, candidates)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with show_progress() as progress:
        fetched = fetch_corpus(
            source,
            path,
            words=words,
            sample=sample,
            on_text=lambda counts: progress.update(
                counts.accepted, sample.wanted, lambda: _in_words(counts, sample.wanted)
            ),
        )
    _show_fetched(fetched, num_samples, as_json=as_json)


@corpus.command
@reads_input()
@click.option(
    "--tokenizer",
    metavar="FILE|FOLDER|ID",
    help="Count tokens with this tokenizer.json, folder with one, or model of the hub.  [default:"
    " none, words and bytes only]",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Count the documents that have more tokens than this; needs --tokenizer.",
)
@click.option("--no-bos", is_flag=True, help="Do not count a BOS token for each document.")
@json_option
def inspect(
    *,
    source: Input,
    tokenizer: str | None,
    context: int | None,
    no_bos: bool,
    as_json: bool,
) -> None:
    """Count the documents of INPUT, their lengths, and empty, repeated and too long ones.

    INPUT is a folder or file of documents, as for `stream`. The exit code is 1 if documents cannot
    be read.
    """
    if tokenizer is None and (context is not None or no_bos):
        raise click.UsageError("--context and --no-bos need a --tokenizer to count tokens with")
    counter = None if tokenizer is None else TokenCounter(tokenizer, prepend_bos=not no_bos)
    inspection = inspect_documents(source.open(), tokenizer=counter, context=context)
    if as_json:
        print_json(inspection.to_dict())
    else:
        _show_inspection(inspection)
    if inspection.unreadable:
        raise click.exceptions.Exit(1)


def _show_inspection(inspection: Inspection) -> None:
    print_rich(inspection_table(inspection, shown))
    for failure in inspection.failures:
        note(f"{failure.id}: {failure.code}: {failure.message}")
    _tell_hidden(inspection.unreadable - len(inspection.failures))
    if inspection.tokenizer is None:
        note("Words and bytes only; give --tokenizer to count tokens.")
    elif inspection.prepend_bos:
        note("Tokens include one BOS per document.")


def _tell_hidden(count: int) -> None:
    """Report how many rows cannot be read beside those that were named."""
    if count:
        note(f"and {count:,} more that cannot be read")


def _show_fetched(fetched: Fetched, wanted: int | None, *, as_json: bool) -> None:
    short = wanted is not None and fetched.documents < wanted
    if as_json:
        paths = {"path": str(fetched.path), "manifest": str(fetched.manifest)}
        summary = vars(fetched) | paths | {"counts": fetched.counts.to_dict()}
        print_json(summary, indent=None)
    else:
        if fetched.cached:
            say("Nothing was read: this file is complete already.")
        if fetched.resumed_at:
            say(f"Continued after {fetched.resumed_at:,} texts of an earlier fetch.")
        counts = fetched.counts
        say(
            f"{counts.seen:,} texts seen: {counts.accepted:,} accepted, {counts.refusals}",
            f"{fetched.path}: {fetched.documents:,} documents",
        )
        for row, reason in fetched.failures.items():
            note(f"{row}: {reason}")
        _tell_hidden(counts.unreadable - len(fetched.failures))
    if short:
        note(
            f"Error: the dataset ended; it holds {fetched.documents:,} accepted "
            f"documents, and {wanted:,} were asked for"
        )
        raise click.exceptions.Exit(1)


def _in_words(counts: Counts, wanted: int | None) -> str:
    of = f" of {wanted:,}" if wanted else ""
    return f"{counts.accepted:,}{of} accepted, {counts.seen:,} texts seen"
