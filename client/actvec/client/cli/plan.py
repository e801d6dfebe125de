"""`actvec plan`: what a pass over a corpus takes and costs."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, replace

import click

from actvec.client.cli.commands import Numbers, Verb, takes
from actvec.client.cli.options import Input, json_option, reads_input
from actvec.client.cli.printing import print_json, say
from actvec.client.cli.progress import duration, show_progress
from actvec.client.cli.settings import truncation_option
from actvec.client.documents import DocumentSource
from actvec.client.planning.estimate import FRACTION_OF_PEAK, Estimate, Figure, Plan
from actvec.client.planning.prices import CARDS
from actvec.client.records.vectors import Document, Failure

_POSITIVE = Numbers(min=0, min_open=True)

# What becomes of a document over the context.
_OVER = {
    "error": "they fail and cost nothing; --truncation keeps a part",
    "start": "their start is kept",
    "end": "their end is kept",
}

# Columns of the lines that are printed.
_WIDTH = 100


@click.command(cls=Verb)
@reads_input()
@takes(
    "asked",
    Plan,
    click.option(
        "--gpu",
        metavar="NAME",
        required=True,
        help=f"The card: {', '.join(CARDS)}. Any other card needs --price-per-hour "
        "and --tokens-per-second.",
    ),
    click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        help="The number of machines with such a card that share the corpus.",
    ),
    click.option(
        "--model",
        metavar="ID",
        default=Plan.model,
        help="The model. The speed is estimated for Pythias; any other model needs"
        " --tokens-per-second.",
    ),
    click.option(
        "--tokenizer",
        metavar="FILE|FOLDER|ID",
        help="A tokenizer.json, a folder with one, or a hub id.  [default: that of --model]",
    ),
    click.option(
        "--context",
        metavar="TOKENS",
        type=click.IntRange(min=1),
        help="The longest document that the model takes, in tokens, BOS included.  [default: the"
        " model's; 2048 if it is unknown here]",
    ),
    truncation_option,
    click.option(
        "--tokens-per-second",
        metavar="N",
        type=_POSITIVE,
        help="The speed of one worker, if you have measured it.  [default: an assumption, see"
        " --fraction]",
    ),
    click.option(
        "--fraction",
        metavar="SHARE",
        type=Numbers(0, 1, min_open=True),
        default=FRACTION_OF_PEAK,
        help="Without --tokens-per-second, assume this fraction of the card's peak.",
    ),
    click.option(
        "--price-per-hour",
        type=Numbers(min=0),
        metavar="DOLLARS",
        help="The price of one worker.  [default: from a table of Modal's prices]",
    ),
    click.option(
        "--start-seconds",
        metavar="SECONDS",
        type=Numbers(min=0),
        help="Paid time from the start of a worker until it computes.  [default: 120, an"
        " assumption]",
    ),
)
@json_option
def plan(*, source: Input, asked: Plan, as_json: bool) -> None:
    """Estimate the time and cost of a pass over INPUT, before you start anything.

    INPUT is a folder or file of documents, as for `stream`. The model's own tokenizer counts its
    tokens. You need no server. The exit code is 1 if documents would fail.
    """
    found = asked.estimate(_shown(source.open()))
    if as_json:
        print_json(_to_dict(found, asked.card), indent=None)
    else:
        for name, value in _rows(found, asked):
            say(*textwrap.wrap(f"{name:<12}{value}", _WIDTH, subsequent_indent=" " * 12))
    if found.load.unreadable or (found.load.over_context and asked.truncation == "error"):
        raise click.exceptions.Exit(1)


def _shown(documents: DocumentSource) -> Iterator[Document | Failure]:
    """Documents, with how many were read on standard error."""
    done = 0

    def words() -> str:
        return f"{done:,} documents read"

    with show_progress() as progress:
        for done, item in enumerate(documents, start=1):
            progress.update(done, documents.count, words)
            yield item


def _to_dict(found: Estimate, gpu: str) -> dict[str, object]:
    load, rate, price = asdict(found.load), found.tokens_per_second, found.price_per_hour
    del load["squares"]
    return load | {
        "gpu": gpu,
        "workers": found.workers,
        "tokens_per_second": round(rate.value, 1),
        "tokens_per_second_from": "given" if rate.given else "assumed",
        "price_per_hour": price.value,
        "price_from": price.origin,
        "start_seconds": found.start_seconds.value,
        "seconds": round(found.seconds, 1),
        "dollars": round(found.dollars, 4),
    }


def _rows(found: Estimate, asked: Plan) -> Iterator[tuple[str, str]]:
    load, rate, context = found.load, found.tokens_per_second, asked.model_context()
    price, start = found.price_per_hour, found.start_seconds
    yield "corpus", f"{load.documents:,} documents, {load.tokens:,} tokens to compute"
    if load.unreadable:
        yield "unreadable", f"{load.unreadable:,}, blank ones included: they fail and cost nothing"
    if load.over_context:
        yield "too long", f"{load.over_context:,} over the context: {_OVER[asked.truncation]}"
    yield "longest", f"{load.longest_tokens:,} tokens, BOS included"
    yield "context", f"{context.value:,.0f} tokens ({_origin(context, '--context')})"
    yield "speed", f"{rate.value:,.0f} tokens/s per worker ({_origin(rate, '--tokens-per-second')})"
    yield (
        "price",
        f"${price.value:.2f} an hour for {asked.card} ({_origin(price, '--price-per-hour')})",
    )
    yield "start", f"{start.value:,.0f} s for each worker ({_origin(start, '--start-seconds')})"
    yield "time", _time(found)
    yield "cost", f"${found.dollars:.2f} for GPUs; CPU, memory and idle time cost extra"
    more = replace(found, workers=found.workers + 1)
    yield "one more", f"{_time(more)}, ${more.dollars:.2f}"


def _origin(figure: Figure, option: str) -> str:
    """Where a number is from; one that was not given, with the option that gives it."""
    return figure.origin if figure.given else f"{figure.origin}; {option}"


def _time(found: Estimate) -> str:
    workers = "1 worker" if found.workers == 1 else f"{found.workers:,} workers"
    return f"{duration(found.seconds)} with {workers}"
