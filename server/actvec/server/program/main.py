"""The program `actvec-server`."""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
from typing import Any, NoReturn

import click

from actvec.server.config import ServerConfig
from actvec.server.errors import CutShortError, EngineLostError, StartupError
from actvec.server.program.advice import explained
from actvec.server.program.options import GroupedCommand, server_config, server_options

# Also where this module is the program, and has no name of its own.
log = logging.getLogger("actvec.server.program.main")


@click.command(
    cls=GroupedCommand,
    context_settings={
        "auto_envvar_prefix": "ACTVEC_SERVER",
        "help_option_names": ["-h", "--help"],
    },
)
@server_options
@click.version_option(package_name="actvec")
def main(**options: Any) -> None:
    """Serve activation vectors of a language model over gRPC.

    Every option is also an environment variable: ACTVEC_SERVER_ and its name, such as
    ACTVEC_SERVER_MODEL.

    On SIGTERM or SIGINT the server finishes its calls and ends; a second one ends it at once. On
    SIGHUP it reads tokens and certificates again.

    Exit codes: 0 a clean shutdown, 1 a shutdown that was not complete in time, 2 it could not
    start, 70 the engine hung or its device was lost: start the server again.
    """
    # What grpc's core says of a port that is taken, we say in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # While a model loads, no event loop runs that could end in good order, and nothing needs it to.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    config = server_config(options)
    try:
        # Here, since grpc reads the variable above when it is imported.
        from actvec.server.access.access import Access  # noqa: PLC0415
        from actvec.server.telemetry.log import configure_logging  # noqa: PLC0415

        configure_logging(config.watch.log_format, config.watch.log_level)
        # Check access before a model is loaded.
        Access.of(config)
        serve = import_server()

        asyncio.run(_until_signalled(serve, config))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: pip install 'actvec[server]'")
    except StartupError as error:
        log.debug("the server could not start", exc_info=True)
        _fail(explained(error))


def import_server() -> Any:
    """Import `actvec.server.program.server`, which takes seconds, and return its `serve`.

    Nothing of the 700,000 objects that torch, transformers and TransformerLens make when they are
    imported is garbage. The collector would look at them again and again meanwhile, for a quarter
    of the time, and later at all of them while calls wait.
    """
    gc.disable()
    from actvec.server.program.server import serve  # noqa: PLC0415

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
        if not await serve(config, stop, take_signals):
            # A thread may hang for which the interpreter would wait.
            os._exit(0)
    except CutShortError as error:
        _end_now(str(error), 1)
    except EngineLostError as error:
        # Shows where it hangs, for a later investigation.
        faulthandler.dump_traceback()
        _end_now(str(error), os.EX_SOFTWARE)


def _exit_at_once(number: int, _frame: object = None) -> NoReturn:
    """End without notice to anybody; files on disk are whole at any time."""
    os._exit(128 + number)


def _end_now(message: str, code: int) -> NoReturn:
    """End even if threads are still busy."""
    print(f"actvec-server: {message}", file=sys.stderr, flush=True)
    os._exit(code)


def _fail(message: str) -> NoReturn:
    print(f"actvec-server: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
