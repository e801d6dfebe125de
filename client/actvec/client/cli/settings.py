"""The options that say how documents become vectors, the same wherever vectors are made."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast, get_args

import click

from actvec.client.api.client import Client
from actvec.client.cli.commands import VECTORS, grouped, wrap
from actvec.client.records.settings import Mode, StateKeywords, Truncation, VectorSettings

Command = TypeVar("Command", bound=Callable[..., Any])

_ALL = "all"
_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


@dataclass(frozen=True)
class Asked:
    """Settings as options name them; `--layers all` waits for a server that knows its layers.

    Attributes:
        settings: The settings, without layers if all are asked for.
        every_layer: Whether all layers on offer are asked for.
        preset: The preset that was named; None if none was, also if one is taken by default.
    """

    settings: VectorSettings
    every_layer: bool = False
    preset: Mode | None = None

    def of(self, client: Client) -> VectorSettings:
        """The settings, with the layers of a server if all are asked for."""
        if not self.every_layer:
            return self.settings
        return replace(self.settings, layers=client.info().layers_on_offer)


@dataclass(frozen=True)
class AskedStates:
    """As `Asked`, for a corpus mean."""

    keywords: StateKeywords
    every_layer: bool = False

    def of(self, client: Client) -> StateKeywords:
        """The settings, with the layers of a server if all are asked for."""
        if not self.every_layer:
            return self.keywords
        return {**self.keywords, "layers": client.info().layers_on_offer}


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


def check_center(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A mean's name as it was given; an unset variable of a shell leaves an empty one.

    Raises:
        click.BadParameter: it is empty.
    """
    if value is not None and not value.strip():
        raise click.BadParameter(
            "it is empty; give a corpus mean's name, its id or latest, or drop the option"
        )
    return value


truncation_option = grouped(
    VECTORS,
    "--truncation",
    type=click.Choice(get_args(Truncation)),
    default="error",
    show_default=True,
    help=(
        "What to do with a document over the model's context: fail, or keep its start or its end."
    ),
)

bos_option = grouped(
    VECTORS,
    "--bos/--no-bos",
    default=None,
    help="Begin a text with the BOS token, or not.  [default: --bos if the tokenizer has one]",
)

_STATE_OPTIONS = (
    grouped(
        VECTORS,
        "--layers",
        metavar="8,12|0-23|all",
        type=Layers(),
        help="The layers to use.  [default: the server's; `actvec info` lists those on offer]",
    ),
    grouped(
        VECTORS,
        "--separate",
        is_flag=True,
        help="Keep the layers separate instead of averaging them.",
    ),
    grouped(
        VECTORS,
        "--hook",
        metavar="HOOK",
        default="",
        help=(
            "The states to take in each layer: resid_post (the residual stream after the "
            "block), resid_pre (before it), attn_out or mlp_out (what its attention or MLP "
            "adds).  [default: the server's]"
        ),
    ),
    truncation_option,
    bos_option,
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

_POOLS_OPTION = grouped(
    VECTORS,
    "--pools",
    metavar="POOL,...",
    callback=split_pools,
    help=(
        "Your own pools, separated by commas: last, mean, mean_no_bos, exp:0.1 "
        "(half-life 10% of the document), exp_tokens:8 (half-life 8 tokens), "
        "position:0 (the first token), span:answer (the tokens of a span), or a preset's pools by "
        "name."
    ),
)


def state_options(command: Command) -> Callable[..., Any]:
    """The options of `StateSettings`, which a verb takes as `states`."""

    def with_states(*args: Any, **kwargs: Any) -> Any:
        return command(*args, states=_take_states(kwargs), **kwargs)

    return wrap(with_states, command, _STATE_OPTIONS)


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
    mode_option = grouped(
        VECTORS,
        "--mode",
        type=click.Choice(get_args(Mode)),
        help="A preset of pools: short is exp_933 (weights that halve with every 6.7% of the"
        " document), long is last, exp_977, exp_933, exp_841."
        + (f"  [default: {default}]" if default else ""),
    )
    center_option = grouped(
        VECTORS,
        "--center",
        metavar="NAME|ID|latest",
        callback=check_center,
        default=center,
        show_default=center is not None,
        help="The corpus mean to subtract." + ("" if center else "  [default: none, raw vectors]"),
    )
    pools_options = (mode_option, _POOLS_OPTION) if presets else (_POOLS_OPTION,)

    def decorate(command: Command) -> Callable[..., Any]:
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            states = _take_states(kwargs)
            chosen: Mode | None = kwargs.pop("mode", None)
            pools: tuple[str, ...] = kwargs.pop("pools")
            if chosen and pools:
                raise click.UsageError("--mode already names pools; give only one of them")
            mode = chosen or (None if pools else default)
            if not mode and not pools:
                raise click.UsageError(
                    "say which pools a vector has: --mode short (D numbers), --mode long (4 D), or"
                    " --pools, for example --pools mean or --pools last,exp:0.1,span:answer"
                )
            settings = VectorSettings(
                mode=mode, pools=pools, center=kwargs.pop("center"), **states.keywords
            )
            return command(*args, asked=Asked(settings, states.every_layer, chosen), **kwargs)

        options = (*pools_options, *_STATE_OPTIONS[:3], center_option, *_STATE_OPTIONS[3:])
        return wrap(with_settings, command, options)

    return decorate


def _take_states(kwargs: dict[str, Any]) -> AskedStates:
    """The options of `StateSettings`, out of those of a command."""
    layers = kwargs.pop("layers")
    keywords = {
        "separate": kwargs.pop("separate"),
        "hook": kwargs.pop("hook"),
        "truncation": kwargs.pop("truncation"),
        "prepend_bos": kwargs.pop("bos"),
        "add_generation_prompt": kwargs.pop("add_generation_prompt"),
        "chat_template_kwargs": kwargs.pop("chat_template_kwargs"),
    }
    if isinstance(layers, tuple):
        keywords["layers"] = layers
    return AskedStates(cast("StateKeywords", keywords), layers == _ALL)
