"""The program `actvec` in a process of its own, as the server runs it."""

import asyncio
import shutil

import psutil
import pytest

from actvec.server.programs import ProgramError, actvec_command, run_json


async def test_a_program_that_fails_says_so_in_its_own_words(tmp_path):
    command = actvec_command("stream", str(tmp_path / "gone"), mode="short", out=tmp_path / "o")
    with pytest.raises(ProgramError, match=r"cannot read .*gone"):
        await run_json([*command, "--json"], {})


async def test_a_program_ends_with_whoever_waits_for_it():
    waiting = asyncio.create_task(run_json(["sleep", "60"], {}))
    while not psutil.Process().children():  # noqa: ASYNC110 - a process, which sets no event
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not [c for c in psutil.Process().children() if c.name() == "sleep"]


def test_options_become_flags():
    command = actvec_command("mean", "compute", "x", name="n", variance=True, bos=False, job=None)
    assert command[3:] == ["mean", "compute", "x", "--name", "n", "--variance"]
    assert shutil.which(command[0])
