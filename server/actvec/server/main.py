"""The program `actvec-server`."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from actvec.server.config import Limits, ModelOptions, ServerConfig
from actvec.server.errors import StartupError

DEFAULTS = ServerConfig()


class _Layers(click.ParamType[tuple[int, ...]]):
    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return tuple(int(layer) for layer in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of block numbers such as 25,26,27", param, ctx)


def _dtype_names() -> click.Choice[str]:
    return click.Choice(["auto", "float32", "bfloat16", "float16"])


@click.command(context_settings={"show_default": True, "auto_envvar_prefix": "ACTVEC_SERVER"})
@click.option("--model", default="demo", help="demo, a hub id, or a directory.")
@click.option("--revision", help="Branch, tag or commit on the hub.  [default: its main branch]")
@click.option(
    "--layers",
    type=_Layers(),
    help="Blocks whose residual streams are averaged, such as 25,26,27.  "
    "[default: three ending at 3/4 of the depth]",
)
@click.option("--dtype", type=_dtype_names(), default="auto", help="Of weights and arithmetic.")
@click.option("--device", default="auto", help="auto, cpu, cuda:0, ...")
@click.option(
    "--engine",
    type=click.Choice(["packed", "lens"]),
    default="packed",
    help="packed, or TransformerLens' own components one document at a time: slow, the referee.",
)
@click.option("--hook", default="resid_post", help="What is taken from the blocks (lens only).")
@click.option("--host", default=DEFAULTS.host, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULTS.port, help="0: a free one.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULTS.data_dir,
    help="Where means and job checkpoints are kept.",
)
@click.option(
    "--step-tokens",
    type=click.IntRange(1),
    default=DEFAULTS.limits.step_tokens,
    help="Tokens of one forward pass.",
)
@click.option(
    "--commit-seconds",
    type=click.FloatRange(0),
    default=DEFAULTS.limits.commit_seconds,
    help="Seconds between two commits of a job that makes a mean.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=DEFAULTS.grace,
    help="Seconds that calls have to finish when the server stops.",
)
@click.version_option(package_name="actvec")
def main(**options: Any) -> None:
    """Serve activation vectors of a language model over gRPC."""
    # What grpc's core says of a port that is taken, we say in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = _config(**options)
    try:
        from actvec.server.server import serve  # noqa: PLC0415 - torch takes seconds
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: pip install 'actvec[server]'")
    try:
        asyncio.run(_until_signalled(serve, config))
    except StartupError as error:
        _fail(str(error))


def _config(
    *,
    host: str,
    port: int,
    data_dir: Path,
    step_tokens: int,
    commit_seconds: float,
    grace: float,
    **model: Any,
) -> ServerConfig:
    return ServerConfig(
        model=ModelOptions(**model),
        limits=Limits(step_tokens=step_tokens, commit_seconds=commit_seconds),
        host=host,
        port=port,
        data_dir=data_dir,
        grace=grace,
    )


async def _until_signalled(serve: Any, config: ServerConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)


def _fail(message: str) -> None:
    print(f"actvec-server: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
