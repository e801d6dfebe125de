"""Options of the programs that load a model themselves."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from actvec.client.cli.settings import split_pools
from actvec.client.records.settings import Mode

Command = TypeVar("Command", bound=Callable[..., Any])


def model_options(command: Command) -> Command:
    """Which model is loaded; `model_arguments` takes what they give."""
    for option in (
        click.option(
            "--hook",
            metavar="HOOK",
            help="The states to take in each block: resid_post (the residual stream after it), "
            "resid_pre (before it), attn_out or mlp_out (what its attention or MLP adds)."
            "  [default: resid_post]",
        ),
        click.option(
            "--layers",
            metavar="N,N",
            help="The blocks to use.  [default: three that end at 3/4 of the depth]",
        ),
        click.option("--revision", metavar="REV", help="The branch, tag or commit on the hub."),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="The dtype of weights and arithmetic. auto: bfloat16 on a GPU, float32 on a CPU.",
        ),
        click.option(
            "--model",
            default="demo",
            show_default=True,
            metavar="demo|ID|DIR",
            help="The model: a hub id, or a folder that every worker has.",
        ),
    ):
        command = option(command)
    return command


def model_arguments(*, layers: str | None, **model: Any) -> dict[str, Any]:
    """Which model to load, as `ModelOptions` names it; what was not given is not there.

    Raises:
        click.UsageError: the layers are no numbers.
    """
    options = {name: value for name, value in model.items() if value is not None}
    if layers is not None:
        try:
            options["layers"] = tuple(int(layer) for layer in layers.split(","))
        except ValueError as error:
            raise click.UsageError(f"--layers are numbers of blocks: {error}") from None
    return options


separate_option = click.option(
    "--separate", is_flag=True, help="Keep each layer separate instead of averaging them."
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
        click.option("--mode", type=click.Choice(get_args(Mode)), help="A preset of pools."),
    ):
        wrapped = option(wrapped)
    result: Command = wrapped
    return result
