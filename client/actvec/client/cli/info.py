"""`actvec info`: what a server serves."""

from collections.abc import Sequence

import click

from actvec.client.cli.commands import Verb
from actvec.client.cli.options import json_option
from actvec.client.cli.printing import fact_lines, print_result
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.records.model import ModelInfo


@click.command(cls=Verb)
@json_option
@talks_to_server
def info(server: Connect, *, as_json: bool) -> None:
    """Show the server's model, layers, widths and limits."""
    with server.connect() as client:
        answer = client.info()
    print_result(answer.to_dict(), *fact_lines(_facts(answer)), as_json=as_json)


def _facts(info: ModelInfo) -> list[tuple[str, str]]:
    limits, versions = info.limits, info.versions
    layers = ", ".join(map(str, info.layers))
    offered = ", ".join(_ranges(info.layers_on_offer))
    return [
        ("model", f"{info.model} ({info.architecture})"),
        ("revision", info.revision),
        ("tokenizer", f"sha256 {info.tokenizer_sha256}"),
        ("layers", f"{layers} of {info.n_layers} ({info.hook}); {info.n_layers_loaded} loaded"),
        ("on offer", f"layers {offered}; hooks {', '.join(info.hooks)}"),
        ("pools", _pools(info)),
        ("documents", f"texts{', chats' * info.has_chat_template}, token ids"),
        ("width", f"{info.d_model}"),
        ("modes", ", ".join(f"{mode.mode} ({mode.dimensions} numbers)" for mode in info.modes)),
        ("engine", f"{info.engine}, {info.dtype} on {info.device}"),
        *([("", info.engine_note)] if info.engine_note else []),
        ("vectors", f"{'' if info.batch_invariant else 'not '}bit for bit the same in any step"),
        ("context", f"{limits.max_tokens} tokens"),
        (
            "limits",
            f"{limits.max_text_bytes:,} bytes per text, {limits.max_message_bytes:,} per message",
        ),
        *([("vector", f"{numbers:,} numbers")] if (numbers := limits.max_vector_numbers) else []),
        ("step", f"{limits.step_tokens:,} tokens"),
        (
            "versions",
            f"actvec {versions.actvec}, torch {versions.torch}, transformers"
            f" {versions.transformers}, transformer-lens {versions.transformer_lens},"
            f" Python {versions.python}",
        ),
    ]


def _pools(info: ModelInfo) -> str:
    named = {pool.name: pool.depth for mode in info.modes for pool in mode.pools}
    presets = ", ".join(
        f"{name} (half-life {depth:.1%} of the document)" if depth else name
        for name, depth in named.items()
    )
    others = "mean, mean_no_bos, exp:P, exp_tokens:H, position:I, span:NAME"
    return f"{presets}; {others}"


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending numbers, those that follow each other as one range: `0-5`."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in groups]
