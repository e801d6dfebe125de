"""Detects engines that hang or have lost their device."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from actvec.server.engine.runner import StepRunner
from actvec.server.errors import EngineLostError

log = logging.getLogger(__name__)

_LOOKS = 1.0


async def last_engine_lost(
    runners: Sequence[StepRunner], step_timeout: float, take_out: Callable[[StepRunner], bool]
) -> EngineLostError:
    """Return when the last engine is lost: its device failed, or a step takes too long.

    Nothing in this process can end a hanging step, nor repair a failed device.

    Args:
        runners: The runner of each engine.
        step_timeout: Seconds that a step may take.
        take_out: Gives a lost engine no more documents; returns False if it is the last one.
    """
    left = list(runners)
    while True:
        for runner in list(left):
            reason = _loss(runner, step_timeout)
            if reason is None:
                continue
            if not take_out(runner):
                return EngineLostError(reason)
            left.remove(runner)
            devices = ", ".join(runner.card.device for runner in left)
            log.error(
                "%s is taken out: %s; still serving on %s", runner.card.device, reason, devices
            )
        await asyncio.sleep(min(_LOOKS, step_timeout / 4))


def _loss(runner: StepRunner, step_timeout: float) -> str | None:
    """Say why an engine is lost; None while it works."""
    if runner.lost is not None:
        return f"the device is lost: {runner.lost}"
    if runner.running_for() > step_timeout:
        return (
            f"the engine hangs: a step has been running for {runner.running_for():.0f} seconds "
            f"({step_timeout:g} are allowed)"
        )
    return None
