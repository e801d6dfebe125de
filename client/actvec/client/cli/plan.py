"""`actvec plan`: what a pass over a corpus takes and costs."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from actvec.client.cli.counting import show_count
from actvec.client.cli.options import json_option, truncation_option
from actvec.client.cli.progress import duration
from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.documents import DocumentSource, open_documents
from actvec.client.plan import (
    Estimate,
    Figure,
    Load,
    context_figure,
    estimate,
    known_for_rate,
    measure_load,
    price_figure,
    rate_figure,
    start_figure,
)
from actvec.client.prices import CARDS, card_name
from actvec.client.vectors import Document, Failure, Truncation

_POSITIVE = click.FloatRange(min=0, min_open=True)

# What becomes of a document over the context.
_OVER = {
    "error": "they fail and cost nothing; --truncation keeps a part",
    "start": "their start is kept",
    "end": "their end is kept",
}

# Columns of the lines that are printed, and of their second column.
_WIDTH = 100
_INDENT = " " * 12


@click.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "--gpu",
    metavar="NAME",
    required=True,
    help=f"The card: {', '.join(CARDS)}; another one with --price-per-hour and"
    " --tokens-per-second.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Machines with such a card that share the corpus.",
)
@click.option(
    "--model",
    metavar="ID",
    default="EleutherAI/pythia-12b",
    show_default=True,
    help="The model; the speed of Pythias can be assumed, of others it has to be given.",
)
@click.option(
    "--tokenizer",
    metavar="FILE|FOLDER|ID",
    help="A tokenizer.json, a folder with one, or a hub id.  [default: that of --model]",
)
@click.option(
    "--context",
    metavar="TOKENS",
    type=click.IntRange(min=1),
    help="Tokens of a document that the model takes, BOS included.  [default: the model's, 2048]",
)
@truncation_option
@click.option(
    "--tokens-per-second",
    metavar="N",
    type=_POSITIVE,
    help="Of one worker, where you have measured it.  [default: assumed, see --fraction]",
)
@click.option(
    "--fraction",
    metavar="SHARE",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Of the card's peak, which is assumed where --tokens-per-second is not given.",
)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0),
    metavar="DOLLARS",
    help="Of one worker.  [default: from a table of Modal's prices]",
)
@click.option(
    "--start-seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="From the start of a worker until it computes, which is paid for.  [default: 120, an"
    " assumption]",
)
@json_option
def plan(
    *,
    source: Path,
    gpu: str,
    workers: int,
    model: str,
    tokenizer: str | None,
    context: int | None,
    truncation: Truncation,
    tokens_per_second: float | None,
    fraction: float,
    price_per_hour: float | None,
    start_seconds: float | None,
    as_json: bool,
) -> None:
    """Reckon what a pass over INPUT takes and costs, before anything is started.

    INPUT is what `stream` takes; its tokens are counted with the model's own tokenizer. No server
    is needed. The exit code is 1 where documents would fail.
    """
    gpu = card_name(gpu)
    price = price_figure(gpu, price_per_hour)
    if tokens_per_second is None:
        # To ask for it after the count of a large corpus would be late.
        known_for_rate(gpu, model)
    fits = context_figure(model, context)
    documents = open_documents(source)
    load = measure_load(
        _shown(documents),
        TokenCounter(tokenizer or model),
        context=int(fits.value),
        truncation=truncation,
    )
    rate = rate_figure(gpu, model, load, given=tokens_per_second, fraction=fraction)
    start = start_figure(start_seconds)

    def reckon(machines: int) -> Estimate:
        return estimate(
            load,
            workers=machines,
            tokens_per_second=rate,
            price_per_hour=price,
            start_seconds=start,
        )

    reckoned = reckon(workers)
    if as_json:
        click.echo(json.dumps(_to_dict(load, reckoned, gpu)))
    else:
        _show(
            load,
            reckoned,
            one_more=reckon(workers + 1),
            gpu=gpu,
            fits=fits,
            fate=_OVER[truncation],
        )
    if load.unreadable or (load.over_context and truncation == "error"):
        raise click.exceptions.Exit(1)


def _shown(documents: DocumentSource) -> Iterator[Document | Failure]:
    """Documents, with how many were read on standard error."""
    done = 0

    def words() -> str:
        return f"{done:,} documents read"

    with show_count(documents.count) as show:
        for done, item in enumerate(documents, start=1):
            show(done, words)
            yield item


def _to_dict(load: Load, reckoned: Estimate, gpu: str) -> dict[str, object]:
    rate, price = reckoned.tokens_per_second, reckoned.price_per_hour
    return {
        "documents": load.documents,
        "unreadable": load.unreadable,
        "over_context": load.over_context,
        "tokens": load.tokens,
        "longest_tokens": load.longest_tokens,
        "gpu": gpu,
        "workers": reckoned.workers,
        "tokens_per_second": round(rate.value, 1),
        "tokens_per_second_from": "given" if rate.given else "assumed",
        "price_per_hour": price.value,
        "price_from": price.origin,
        "start_seconds": reckoned.start_seconds.value,
        "seconds": round(reckoned.seconds, 1),
        "dollars": round(reckoned.dollars, 4),
    }


def _show(
    load: Load, reckoned: Estimate, *, one_more: Estimate, gpu: str, fits: Figure, fate: str
) -> None:
    rate, price, start = (
        reckoned.tokens_per_second,
        reckoned.price_per_hour,
        reckoned.start_seconds,
    )
    rows = [("corpus", f"{load.documents:,} documents, {load.tokens:,} tokens to compute")]
    if load.unreadable:
        rows.append(("unreadable", f"{load.unreadable:,}, or blank: they fail and cost nothing"))
    if load.over_context:
        rows.append(("too long", f"{load.over_context:,} over the context: {fate}"))
    rows += [
        ("longest", f"{load.longest_tokens:,} tokens, BOS included"),
        ("context", f"{fits.value:,.0f} tokens ({fits.origin})"),
        ("speed", f"{rate.value:,.0f} tokens/s a worker ({rate.origin})"),
        ("price", f"${price.value:.2f} an hour for {gpu} ({price.origin})"),
        ("start", f"{start.value:,.0f} s of each worker ({start.origin})"),
        ("time", _time(reckoned)),
        ("cost", f"${reckoned.dollars:.2f} for GPUs; CPU, memory and idle time come on top"),
        ("one more", f"{_time(one_more)}, ${one_more.dollars:.2f}"),
    ]
    for name, value in rows:
        click.echo(
            textwrap.fill(value, _WIDTH, initial_indent=f"{name:<12}", subsequent_indent=_INDENT)
        )


def _time(reckoned: Estimate) -> str:
    workers = "1 worker" if reckoned.workers == 1 else f"{reckoned.workers:,} workers"
    return f"{duration(reckoned.seconds)} with {workers}"
