"""The program in its own process."""

import os
import subprocess
import sys
from pathlib import Path

from tests.warm import warm_start


def start(*arguments, **settings):
    """Start the program in its own process."""
    return subprocess.Popen(
        [sys.executable, "-c", "from actvec.client.cli import main; main()", *map(str, arguments)],
        **settings,
    )


def run_forked(program, *arguments, log: Path, **variables):
    """Run Python code as a program, to its end, without the second that its imports take.

    Standard error goes to the file `log`, and comes back as text, as does standard output.
    """
    process = warm_start(program, [*map(str, arguments)], os.environ | variables, log)
    with process.stdout:
        output = process.stdout.read()
    return subprocess.CompletedProcess(arguments, process.wait(60), output, log.read_text())
