"""The options that say how documents become vectors, the same wherever vectors are made."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, get_args

import click

from actvec.client.api.client import Client
from actvec.client.cli.commands import VECTORS, grouped, takes
from actvec.client.records.settings import (
    MeanSettings,
    Mode,
    StateSettings,
    Truncation,
    VectorSettings,
)

Command = TypeVar("Command", bound=Callable[..., Any])
Settings = TypeVar("Settings", bound=StateSettings)

_ALL = "all"
_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


@dataclass(frozen=True)
class Asked(Generic[Settings]):
    """Settings as options name them; `--layers all` waits for a server that knows its layers.

    Attributes:
        settings: The settings, without layers if all are asked for.
        every_layer: Whether all layers on offer are asked for.
        preset: The preset that was named; None if none was, also if one is taken by default.
    """

    settings: Settings
    every_layer: bool
    preset: Mode | None = None

    def of(self, client: Client) -> Settings:
        """The settings, with the layers of a server if all are asked for."""
        if not self.every_layer:
            return self.settings
        return replace(self.settings, layers=client.info().layers_on_offer)


class Layers(click.ParamType[tuple[int, ...] | str]):
    """`8,12,16`, `0-23` or `all`."""

    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...] | str:
        """The layers that a text names, ascending."""
        if isinstance(value, tuple) or value.strip() == _ALL:
            return value if isinstance(value, tuple) else _ALL
        layers: list[int] = []
        for part in value.split(","):
            match = _PART.fullmatch(part.strip())
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if first > last:
                self.fail(f"{value!r} names no layers; write 8,12,16 or 0-23 or all", param, ctx)
            layers += range(first, last + 1)
        if len(set(layers)) < len(layers):
            self.fail(f"{value!r} names a layer twice; name each once", param, ctx)
        return tuple(sorted(layers))


def split_pools(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The pools that a text names, separated by commas."""
    return () if value is None else tuple(pool.strip() for pool in value.split(","))


def _json_object(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dict[str, Any]:
    try:
        given = json.loads(value or "{}")
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise click.BadParameter('it is not a JSON object such as {"enable_thinking": false}')
    return given


def _check_center(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A mean's name as it was given; an unset variable of a shell leaves an empty one."""
    if value is not None and not value.strip():
        raise click.BadParameter(
            "it is empty; give a corpus mean's name, its id or latest, or drop the option"
        )
    return value


def _mode_option(default: Mode | None) -> Callable[[Command], Command]:
    return grouped(
        VECTORS,
        "--mode",
        type=click.Choice(get_args(Mode)),
        help="A preset of pools: short is exp_933 (weights that halve with every 6.7% of the"
        " document), long is last, exp_977, exp_933, exp_841."
        + (f"  [default: {default}]" if default else ""),
    )


def _center_option(default: str | None) -> Callable[[Command], Command]:
    return grouped(
        VECTORS,
        "--center",
        metavar="NAME|ID|latest",
        callback=_check_center,
        default=default,
        help="The corpus mean to subtract." + ("" if default else "  [default: none, raw vectors]"),
    )


_pools_option = grouped(
    VECTORS,
    "--pools",
    metavar="POOL,...",
    callback=split_pools,
    help="Your own pools, separated by commas: last, mean, mean_no_bos, exp:0.1 (half-life 10% of"
    " the document), exp_tokens:8 (half-life 8 tokens), position:0 (the first token), span:answer"
    " (the tokens of a span), or a preset's pools by name.",
)

_layers_option = grouped(
    VECTORS,
    "--layers",
    metavar="8,12|0-23|all",
    type=Layers(),
    help="The layers to use.  [default: the server's; `actvec info` lists those on offer]",
)

_separate_option = grouped(
    VECTORS,
    "--separate",
    is_flag=True,
    help="Keep the layers separate instead of averaging them.",
)

_hook_option = grouped(
    VECTORS,
    "--hook",
    metavar="HOOK",
    default="",
    show_default=False,
    help="The states to take in each layer: resid_post (the residual stream after the block),"
    " resid_pre (before it), attn_out or mlp_out (what its attention or MLP adds).  [default: the"
    " server's]",
)

truncation_option = grouped(
    VECTORS,
    "--truncation",
    type=click.Choice(get_args(Truncation)),
    default="error",
    help="What to do with a document over the model's context: fail, or keep its start or its end.",
)

_bos_option = grouped(
    VECTORS,
    "--bos/--no-bos",
    "prepend_bos",
    default=None,
    help="Begin a text with the BOS token, or not.  [default: --bos if the tokenizer has one]",
)

_chat_options = (
    grouped(
        VECTORS,
        "--add-generation-prompt",
        is_flag=True,
        help="End a chat with the tokens that begin an answer, as the chat template defines them.",
    ),
    grouped(
        VECTORS,
        "--chat-template-kwargs",
        metavar="JSON",
        callback=_json_object,
        help="More arguments of the chat template, such as '{\"enable_thinking\": false}'.",
    ),
)

_name_option = click.option(
    "--name", required=True, help="The mean's name: letters, digits, '.', '_' and '-'."
)
_variance_option = click.option(
    "--variance", is_flag=True, help="Also store second moments, to standardize by."
)


def vector_options(
    *, default: Mode | None = None, center: str | None = None, presets: bool = True
) -> Callable[[Command], Callable[..., Any]]:
    """The options of `VectorSettings`, which a verb takes as `asked`.

    Args:
        default: The preset that is taken if neither a preset nor pools are named; None if one of
            them must be.
        center: The mean that is taken if none is named; None for raw vectors.
        presets: Whether a preset can be named.
    """

    def ask(layers: Any, mode: Mode | None = None, **others: Any) -> Asked[VectorSettings]:
        settings = _vector_settings(default=default, mode=mode, layers=_named(layers), **others)
        return Asked(settings, layers == _ALL, mode)

    return takes(
        "asked",
        ask,
        *[_mode_option(default)] * presets,
        *(_pools_option, _layers_option, _separate_option, _hook_option, _center_option(center)),
        *(truncation_option, _bos_option, *_chat_options),
    )


def mean_options(command: Command) -> Callable[..., Any]:
    """The options of `MeanSettings`, which a verb takes as `asked`."""

    def ask(layers: Any, **others: Any) -> Asked[MeanSettings]:
        return Asked(_mean_settings(layers=_named(layers), **others), layers == _ALL)

    job_option = click.option(
        "--job", help="The name by which the server resumes the job.  [default: the mean's name]"
    )
    take_over_option = click.option(
        "--take-over",
        is_flag=True,
        help="Take the job from another client that has been silent for half a minute.",
    )
    return takes(
        "asked",
        ask,
        *(_name_option, job_option, _variance_option, take_over_option),
        *(_layers_option, _separate_option, _hook_option, truncation_option, _bos_option),
        *_chat_options,
    )(command)


def _vector_settings(
    *,
    mode: Mode | None = None,
    pools: tuple[str, ...],
    default: Mode | None = None,
    **others: Any,
) -> VectorSettings:
    if mode and pools:
        raise click.UsageError("--mode already names pools; give only one of them")
    mode = mode or (None if pools else default)
    if not mode and not pools:
        raise click.UsageError(
            "say which pools a vector has: --mode short (D numbers), --mode long (4 D), or"
            " --pools, for example --pools mean or --pools last,exp:0.1,span:answer"
        )
    return VectorSettings(mode=mode, pools=pools, **others)


def _mean_settings(*, name: str, job: str | None = None, **others: Any) -> MeanSettings:
    return MeanSettings(name=name, job=job or name, **others)


def _named(layers: Any) -> tuple[int, ...]:
    return layers if isinstance(layers, tuple) else ()


# The same for programs that load a model themselves, whose options name its layers and hook. A verb
# takes them as `settings`: a `VectorSettings`, or a `MeanSettings`.
own_vector_options = takes(
    "settings",
    _vector_settings,
    *(_mode_option(None), _pools_option, _separate_option),
    *(truncation_option, _bos_option, *_chat_options),
)
own_mean_options = takes(
    "settings",
    _mean_settings,
    *(_name_option, _variance_option, _separate_option),
    *(truncation_option, _bos_option, *_chat_options),
)
