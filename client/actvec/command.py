"""The entry point of the program `actvec`: what has to be in order before anything is imported.

It stands beside the package `actvec.client`, whose own import takes gRPC and most of the start.
"""

import io
import os
import signal
import sys


def main() -> None:
    """Run the program and exit; see `actvec.client.cli`."""
    # Nothing is open yet, and a traceback of imports tells nobody anything.
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper):
        # A character that the terminal does not have is escaped, as on standard error.
        output.reconfigure(errors="backslashreplace")
    # gRPC's log in C++ repeats, in other words, what the errors of this program say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from actvec.client.cli import main as run  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, before)
    run()
