"""Notices an engine that does not come back."""

import asyncio

from actvec.server.errors import EngineLostError
from actvec.server.runner import StepRunner

_LOOKS = 1.0


async def engine_lost(runner: StepRunner, step_timeout: float) -> EngineLostError:
    """Return when the engine is lost: its device failed, or a step takes too long.

    Nothing in this process can end a step that hangs, nor heal a device that has failed.
    """
    while True:
        if runner.lost is not None:
            return EngineLostError(f"the device is lost: {runner.lost}")
        if runner.running_for() > step_timeout:
            return EngineLostError(
                f"the engine hangs: a step has been running for {runner.running_for():.0f} seconds "
                f"(--step-timeout {step_timeout:g})"
            )
        await asyncio.sleep(min(_LOOKS, step_timeout / 4))
