"""Options of the programs that compute in workers of their own."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from actvec.client.cli.settings import split_pools
from actvec.client.records.settings import Mode
from actvec.server.config import ModelOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def given(**model: Any) -> dict[str, Any]:
    """The options of a model that differ from `ModelOptions`' defaults."""
    return {name: value for name, value in model.items() if value != getattr(ModelOptions, name)}


separate_option = click.option(
    "--separate", is_flag=True, help="Keep the layers separate instead of averaging them."
)


def pool_options(command: Command) -> Command:
    """How states become vectors; a verb takes them as `pooling`, keywords of `VectorSettings`."""

    def with_pooling(
        *args: Any, mode: Mode | None, pools: tuple[str, ...], separate: bool, **kwargs: Any
    ) -> Any:
        if bool(mode) == bool(pools):
            raise click.UsageError(
                "say which pools a vector has: --mode short, --mode long, or --pools, for example"
                " --pools mean,last"
            )
        pooling = {"mode": mode, "pools": pools, "separate": separate}
        return command(*args, pooling=pooling, **kwargs)

    wrapped: Any = functools.update_wrapper(with_pooling, command)
    for option in (
        separate_option,
        click.option(
            "--pools",
            metavar="POOL,...",
            callback=split_pools,
            help="Your own pools, as `actvec stream` takes them: mean, last, exp:0.1, span:answer.",
        ),
        click.option(
            "--mode",
            type=click.Choice(get_args(Mode)),
            help="A preset of pools: short is exp_933 (weights that halve with every 6.7% of the"
            " document), long is last, exp_977, exp_933, exp_841.",
        ),
    ):
        wrapped = option(wrapped)
    result: Command = wrapped
    return result
