"""The program `actvec-server`."""

import asyncio
import faulthandler
import gc
import os
import signal
import sys
from typing import Any, NoReturn

import click

from actvec.server.config import ServerConfig
from actvec.server.errors import CutShortError, EngineLostError, StartupError
from actvec.server.options import SectionedCommand, server_config, server_options


@click.command(
    cls=SectionedCommand,
    context_settings={"show_default": True, "auto_envvar_prefix": "ACTVEC_SERVER"},
)
@server_options
@click.version_option(package_name="actvec")
def main(**options: Any) -> None:
    """Serve activation vectors of a language model over gRPC.

    SIGTERM and SIGINT end the server in good order, a second one at once. SIGHUP has it read
    tokens and certificates again.

    Exit codes: 0 ended in good order, 1 not everything was done in time, 2 it could not start, 70
    the engine hangs or its device is lost, and the server is to be started again.
    """
    # What grpc's core says of a port that is taken, we say in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # While a model loads, no loop runs that could end in good order, and nothing needs it to.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    config = server_config(options)
    try:
        # Here, since grpc reads the variable above when it is imported.
        from actvec.server.calls.access import Access  # noqa: PLC0415
        from actvec.server.observe.log import configure_logging  # noqa: PLC0415

        configure_logging(config.watch.log_format)
        # Who may call is clear, or not, before a model is loaded.
        Access.of(config)
        serve = import_server()

        asyncio.run(_until_signalled(serve, config))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: pip install 'actvec[server]'")
    except StartupError as error:
        _fail(str(error))


def import_server() -> Any:
    """Import `actvec.server.server`, which takes seconds, and return its `serve`.

    Nothing of the 700,000 objects that torch, transformers and TransformerLens make when they are
    imported is garbage. The collector would look at them again and again meanwhile, for a quarter
    of the time, and later at all of them while calls wait.
    """
    gc.disable()
    from actvec.server.server import serve  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    return serve


async def _until_signalled(serve: Any, config: ServerConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        if stop.is_set():
            _exit_at_once(number)
        stop.set()

    def take_signals(server: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end, number)
        loop.add_signal_handler(signal.SIGHUP, server.reload)

    try:
        await serve(config, stop, take_signals)
    except CutShortError as error:
        _end_now(str(error), 1)
    except EngineLostError as error:
        # Where it hangs, for whoever is to find out why.
        faulthandler.dump_traceback()
        _end_now(str(error), os.EX_SOFTWARE)


def _exit_at_once(number: int, _frame: object = None) -> NoReturn:
    """End without a word to anybody; what is on disk is whole at any time."""
    os._exit(128 + number)


def _end_now(message: str, code: int) -> NoReturn:
    """End although threads are still busy."""
    print(f"actvec-server: {message}", file=sys.stderr, flush=True)
    os._exit(code)


def _fail(message: str) -> NoReturn:
    print(f"actvec-server: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
