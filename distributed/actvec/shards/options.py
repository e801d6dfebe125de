"""Options of the programs that compute in workers of their own."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import click

from actvec.client.cli.commands import wrap
from actvec.client.cli.settings import bos_option, split_pools, truncation_option
from actvec.client.records.settings import Mode
from actvec.server.config import ModelOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_STATES = (
    click.option(
        "--separate", is_flag=True, help="Keep the layers separate instead of averaging them."
    ),
    truncation_option,
    bos_option,
)


def given(**model: Any) -> dict[str, Any]:
    """The options of a model that differ from `ModelOptions`' defaults."""
    return {name: value for name, value in model.items() if value != getattr(ModelOptions, name)}


def vector_options(command: Command) -> Callable[..., Any]:
    """How states become vectors; a verb takes them as `asked`, keywords of `VectorSettings`."""

    def with_settings(**options: Any) -> Any:
        if bool(options["mode"]) == bool(options["pools"]):
            raise click.UsageError(
                "say which pools a vector has: --mode short, --mode long, or --pools, for example"
                " --pools mean,last"
            )
        return _asking(command, ("mode", "pools"), options)

    mode_option = click.option(
        "--mode",
        type=click.Choice(get_args(Mode)),
        help="A preset of pools: short is exp_933 (weights that halve with every 6.7% of the"
        " document), long is last, exp_977, exp_933, exp_841.",
    )
    pools_option = click.option(
        "--pools",
        metavar="POOL,...",
        callback=split_pools,
        help="Your own pools, as `actvec stream` takes them: mean, last, exp:0.1, span:answer.",
    )
    return wrap(with_settings, command, (mode_option, pools_option, *_STATES))


def mean_options(command: Command) -> Callable[..., Any]:
    """What a mean is; a verb takes it as `asked`, keywords of `MeanSettings`."""

    def with_settings(**options: Any) -> Any:
        return _asking(command, ("name", "variance"), options)

    name_option = click.option("--name", required=True, help="The mean's name.")
    variance_option = click.option(
        "--variance", is_flag=True, help="Also store second moments, to standardize by."
    )
    return wrap(with_settings, command, (name_option, variance_option, *_STATES))


def _asking(command: Callable[..., Any], own: Sequence[str], options: dict[str, Any]) -> Any:
    """Call a command with some of its options, and those of states, as `asked`."""
    asked = {name: options.pop(name) for name in (*own, "separate", "truncation")}
    asked["prepend_bos"] = options.pop("bos")
    return command(asked=asked, **options)
