"""`actvec corpus`: fetch a corpus, and look at it."""

import json
from pathlib import Path

import click

from actvec.client.cli.counting import show_count
from actvec.client.cli.options import json_option
from actvec.client.corpora import (
    Counts,
    DataFiles,
    Fetched,
    HubDataset,
    Inspection,
    PickledTexts,
    Sample,
    TokenCounter,
    WordLimits,
    fetch_corpus,
    inspect_corpus,
)
from actvec.client.corpora.display import inspection_table
from actvec.client.corpora.fetching import refusals
from actvec.client.corpora.sources import Source


@click.group
def corpus() -> None:
    """Fetch a corpus from a dataset, and see what a corpus holds. No server is needed."""


@corpus.command
@click.option("--dataset", metavar="ID|FOLDER", help="A dataset of the hub, or a folder like one.")
@click.option("--config", help="Its configuration, for example en.")
@click.option("--split", help="Its split.  [default: train]")
@click.option("--revision", help="Its branch, tag or commit.  [default: the newest]")
@click.option(
    "--files",
    metavar="GLOB",
    multiple=True,
    help="Instead: JSON lines (.json, .jsonl, also .gz) or Parquet files, by name or URL; quote"
    " wildcards. May be given several times.",
)
@click.option(
    "--from-pickle",
    "pickled",
    type=click.Path(path_type=Path),
    help="Instead: a pickled list of strings. Anything else in it is refused, and nothing is run.",
)
@click.option("--column", help="The column of texts.  [default: text]")
@click.option(
    "--min-words",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Take texts of so many words or more.",
)
@click.option(
    "--max-words", type=click.IntRange(min=1), help="Take texts of so many words or fewer."
)
@click.option(
    "--num-samples",
    type=click.IntRange(min=1),
    help="Documents wanted.  [default: all that are accepted; required with --dataset]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which are taken.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    help="Accepted documents that are read to take them from.  [default: 4 times --num-samples]",
)
@click.option(
    "--save-local",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to: a .jsonl, .jsonl.gz or .parquet file.",
)
@json_option
def fetch(
    *,
    dataset: str | None,
    config: str | None,
    split: str | None,
    revision: str | None,
    files: tuple[str, ...],
    pickled: Path | None,
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

    The same options give the same file, and a file that is there already is kept. What broke is
    gone on with by the same command. The exit code is 1 where the dataset holds fewer documents
    than wanted.
    """
    if sum((dataset is not None, bool(files), pickled is not None)) != 1:
        raise click.UsageError("give one of --dataset, --files and --from-pickle")
    if dataset is None and (config or split or revision):
        raise click.UsageError("--config, --split and --revision are of a --dataset")
    if pickled is not None and column:
        raise click.UsageError("a pickled list has no --column")
    source: Source
    if dataset is not None:
        if num_samples is None:
            raise click.UsageError("--dataset needs --num-samples: a dataset can be very large")
        source = HubDataset(dataset, config, split or "train", revision, column or "text")
    else:
        source = PickledTexts(str(pickled)) if pickled else DataFiles(files, column or "text")
    try:
        words, sample = WordLimits(min_words, max_words), Sample(num_samples, seed, candidates)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with show_count(sample.wanted) as show:
        fetched = fetch_corpus(
            source,
            path,
            words=words,
            sample=sample,
            on_text=lambda counts: show(counts.accepted, lambda: _in_words(counts, sample.wanted)),
        )
    _show_fetched(fetched, num_samples, as_json=as_json)


@corpus.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    metavar="FILE|FOLDER|ID",
    help="Counts tokens: a tokenizer.json, a folder with one, or a model's id on the hub."
    "  [default: none, words and bytes only]",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Count the documents of more tokens than this, which --tokenizer counts.",
)
@click.option("--no-bos", is_flag=True, help="Count no BOS token with each document.")
@json_option
def inspect(
    *, source: Path, tokenizer: str | None, context: int | None, no_bos: bool, as_json: bool
) -> None:
    """Show what INPUT holds: how many documents, how long, empty, twice, over the context.

    INPUT is what `stream` takes. The exit code is 1 where documents cannot be read.
    """
    if tokenizer is None and (context is not None or no_bos):
        raise click.UsageError("--context and --no-bos need a --tokenizer to count tokens with")
    counter = None if tokenizer is None else TokenCounter(tokenizer, prepend_bos=not no_bos)
    inspection = inspect_corpus(source, tokenizer=counter, context=context)
    if as_json:
        click.echo(json.dumps(inspection.to_dict(), indent=2))
    else:
        _show_inspection(inspection)
    if inspection.unreadable:
        raise click.exceptions.Exit(1)


def _show_inspection(inspection: Inspection) -> None:
    import rich  # noqa: PLC0415 - slow to import

    rich.print(inspection_table(inspection))
    for failure in inspection.failures:
        click.echo(f"{failure.id}: {failure.code}: {failure.message}", err=True)
    hidden = inspection.unreadable - len(inspection.failures)
    if hidden:
        click.echo(f"and {hidden:,} more that cannot be read", err=True)
    if inspection.tokenizer is None:
        click.echo("Words and bytes only; --tokenizer counts tokens.", err=True)
    elif inspection.prepend_bos:
        click.echo("Tokens include one BOS a document.", err=True)


def _show_fetched(fetched: Fetched, wanted: int | None, *, as_json: bool) -> None:
    short = wanted is not None and fetched.documents < wanted
    if as_json:
        summary = {
            "path": str(fetched.path),
            "manifest": str(fetched.manifest),
            "documents": fetched.documents,
            "cached": fetched.cached,
            "resumed_at": fetched.resumed_at,
            "exhausted": fetched.exhausted,
            "counts": fetched.counts.to_dict(),
        }
        click.echo(json.dumps(summary))
    else:
        if fetched.cached:
            click.echo("Nothing was read: the same was fetched before.")
        if fetched.resumed_at:
            click.echo(f"Went on after {fetched.resumed_at:,} texts of an earlier fetch.")
        counts = fetched.counts
        click.echo(
            f"{counts.seen:,} texts seen: {counts.accepted:,} accepted, {refusals(counts)}\n"
            f"{fetched.path}: {fetched.documents:,} documents"
        )
    if short:
        click.echo(
            f"Error: the dataset ended; {wanted:,} documents were wanted, and it holds"
            f" {fetched.documents:,} that are accepted",
            err=True,
        )
        raise click.exceptions.Exit(1)


def _in_words(counts: Counts, wanted: int | None) -> str:
    of = f" of {wanted:,}" if wanted else ""
    return f"{counts.accepted:,}{of} accepted, {counts.seen:,} texts seen"
