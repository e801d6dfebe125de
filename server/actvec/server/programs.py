"""The program `actvec`, run in a process of its own: the server does not know the client."""

import asyncio
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

# Lines of what a program said last, for its error.
_LAST_LINES = 10


class ProgramError(Exception):
    """A program could not do what it was to do; the message is its own."""


def actvec_command(*arguments: str, **options: object) -> list[str]:
    """What runs `actvec`; an option that is True is a flag, one that is False or None left out."""
    command = [sys.executable, "-c", "from actvec.client.cli import main; main()", *arguments]
    for name, value in options.items():
        flag = f"--{name.rstrip('_').replace('_', '-')}"
        if value is True:
            command.append(flag)
        elif value is not None and value is not False:
            command += [flag, str(value)]
    return command


async def run_json(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a program that prints JSON, and log what it says beside that.

    Args:
        command: With `--json`.
        environment: Added to that of this process.

    Returns:
        What it printed; also where some documents failed, which is in it.

    Raises:
        ProgramError: it did not end well.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - pipes, as asked for
        assert process.stderr is not None  # noqa: S101
        printed, last = await asyncio.gather(process.stdout.read(), _relay(process.stderr))
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code not in {0, 1}:
        raise ProgramError(" ".join(last) or f"it ended with exit code {code}")
    try:
        answer: dict[str, Any] = json.loads(printed)
    except ValueError as error:
        raise ProgramError(f"it printed no JSON: {' '.join(last)}") from error
    return answer


async def _relay(stream: asyncio.StreamReader) -> Sequence[str]:
    last: deque[str] = deque(maxlen=_LAST_LINES)
    async for line in stream:
        text = line.decode(errors="replace").rstrip()
        log.info("%s", text)
        last.append(text)
    return last
