"""The program in a process of its own."""

import subprocess
import sys


def start(*arguments, **settings):
    """Start the program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from actvec.client.cli import main; main()", *map(str, arguments)],
        **settings,
    )
