"""`actvec info`: what a server serves."""

import json

import click

from actvec.client.cli.foreign import shown
from actvec.client.cli.options import Server, json_option, talks_to_server
from actvec.client.model import ModelInfo


@click.command
@json_option
@talks_to_server
def info(server: Server, *, as_json: bool) -> None:
    """Show what the server serves: model, layers, widths, limits."""
    with server.connect() as client:
        answer = client.info()
    if as_json:
        click.echo(json.dumps(answer.to_dict(), indent=2))
        return
    rows = _rows(answer)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _rows(info: ModelInfo) -> list[tuple[str, str]]:
    limits, versions = info.limits, info.versions
    layers = ", ".join(str(layer) for layer in info.layers)
    return [
        ("model", f"{info.model} ({info.architecture})"),
        ("revision", info.revision),
        ("tokenizer", f"sha256 {info.tokenizer_sha256}"),
        ("layers", f"{layers} of {info.n_layers} ({info.hook}); {info.n_layers_loaded} loaded"),
        ("width", f"{info.d_model}"),
        ("modes", ", ".join(f"{mode.mode} ({mode.dimensions} numbers)" for mode in info.modes)),
        ("engine", f"{info.engine}, {info.dtype} on {info.device}"),
        *([("", shown(info.engine_note))] if info.engine_note else []),
        ("vectors", f"{'' if info.batch_invariant else 'not '}bit for bit the same in any step"),
        ("context", f"{limits.max_tokens} tokens"),
        (
            "limits",
            f"{limits.max_text_bytes:,} bytes a text, {limits.max_message_bytes:,} a message",
        ),
        ("step", f"{limits.step_tokens:,} tokens"),
        (
            "versions",
            f"actvec {versions.actvec}, torch {versions.torch}, transformers"
            f" {versions.transformers}, transformer-lens {versions.transformer_lens},"
            f" Python {versions.python}",
        ),
    ]
