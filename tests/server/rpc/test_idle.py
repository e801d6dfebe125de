"""The end of streams in which nothing happens."""

import asyncio

import pytest

from actvec.server.errors import IdleError
from actvec.server.rpc.idle import until_idle


async def silent():
    await asyncio.Event().wait()
    yield "never"


@pytest.mark.parametrize(
    ("owed", "waits"),
    [([], 1), ([True], 2), ([True, True], 3), ([False, True], 3), ([True, False, True], 4)],
)
async def test_silence_counts_from_the_last_answer(owed, waits):
    """A slow answer leaves the client its whole time to send more."""
    states = iter(owed)
    looks = []

    def busy():
        looks.append(next(states, False))
        return looks[-1]

    with pytest.raises(IdleError, match="nothing was sent"):
        await anext(until_idle(silent(), 0.01, busy))
    assert len(looks) == 1 + waits
