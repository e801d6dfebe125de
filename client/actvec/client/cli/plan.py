"""`actvec plan`: what a pass over a corpus takes and costs."""

import json
from pathlib import Path

import click

from actvec.client.cli.options import json_option, truncation_option
from actvec.client.cli.progress import duration
from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.documents import open_documents
from actvec.client.plan import Estimate, Load, estimate, measure_load, price_figure, rate_figure
from actvec.client.vectors import Truncation

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--gpu", required=True, help="The card, as Modal names it, for example A100-80GB.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--model", default="EleutherAI/pythia-12b", show_default=True)
@click.option(
    "--tokenizer",
    help="A tokenizer.json, a folder with one, or a hub id.  [default: that of --model]",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Tokens of a document that the model takes, BOS included.",
)
@truncation_option
@click.option(
    "--tokens-per-second",
    type=_POSITIVE,
    help="Of one worker, where you have measured it.  [default: assumed, see --fraction]",
)
@click.option(
    "--fraction",
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
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="Assumed from the start of a worker until it computes.",
)
@json_option
def plan(
    *,
    source: Path,
    gpu: str,
    workers: int,
    model: str,
    tokenizer: str | None,
    context: int,
    truncation: Truncation,
    tokens_per_second: float | None,
    fraction: float,
    price_per_hour: float | None,
    start_seconds: float,
    as_json: bool,
) -> None:
    """Reckon what a pass over INPUT takes and costs, before anything is started.

    INPUT is what `stream` takes; its tokens are counted with the model's own tokenizer. No server
    is needed. The exit code is 1 where documents would fail.
    """
    price = price_figure(gpu, price_per_hour)
    load = measure_load(
        open_documents(source),
        TokenCounter(tokenizer or model),
        context=context,
        truncation=truncation,
    )
    rate = rate_figure(gpu, model, load, given=tokens_per_second, fraction=fraction)
    reckoned = estimate(
        load,
        workers=workers,
        tokens_per_second=rate,
        price_per_hour=price,
        start_seconds=start_seconds,
    )
    failing = load.unreadable + (load.over_context if truncation == "error" else 0)
    if as_json:
        click.echo(json.dumps(_to_dict(load, reckoned, gpu)))
    else:
        _show(load, reckoned, gpu, context=context, truncation=truncation)
    if failing:
        raise click.exceptions.Exit(1)


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
        "start_seconds": reckoned.start_seconds,
        "seconds": round(reckoned.seconds, 1),
        "dollars": round(reckoned.dollars, 4),
    }


def _show(
    load: Load, reckoned: Estimate, gpu: str, *, context: int, truncation: Truncation
) -> None:
    rate, price = reckoned.tokens_per_second, reckoned.price_per_hour
    over = {"error": "they fail", "start": "their start is kept", "end": "their end is kept"}
    rows = [
        (
            "corpus",
            f"{load.documents:,} documents, {load.tokens:,} tokens to compute, BOS included",
        ),
        ("longest", f"{load.longest_tokens:,} tokens"),
        ("speed", f"{rate.value:,.0f} tokens/s a worker ({rate.origin})"),
        ("price", f"${price.value:.2f} an hour for {gpu} ({price.origin})"),
        ("start", f"{reckoned.start_seconds:.0f} s for each worker (assumed; --start-seconds)"),
        ("time", f"{duration(reckoned.seconds)} with {_workers(reckoned.workers)}"),
        ("cost", f"${reckoned.dollars:.2f} for GPUs; CPU, memory and idle time come on top"),
    ]
    if load.over_context:
        rows.insert(
            2, ("too long", f"{load.over_context:,} over {context:,} tokens: {over[truncation]}")
        )
    if load.unreadable:
        rows.insert(2, ("unreadable", f"{load.unreadable:,}, or blank: they fail"))
    for name, value in rows:
        click.echo(f"{name:<10}  {value}")


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
