"""The stream for the workers."""

import asyncio
import contextlib
import itertools

import numpy as np

TOKEN = "of-the-secret"  # noqa: S105 - of the tests
TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1940)]


async def vectors(client, *, documents=TEXTS, after_first=lambda: None, **options):
    """Return a stream's vectors by index, each once; run a function after the first."""
    found = {}
    async with contextlib.aclosing(client.stream(documents, mode="short", **options)) as results:
        async for result in results:
            if not found:
                after_first()
            assert result.index not in found
            found[result.index] = result.values
    return found


async def texts_until(condition):
    """All texts, again and again until the condition holds."""
    for number in itertools.count():
        if number >= len(TEXTS) and condition():
            return
        yield TEXTS[number % len(TEXTS)]
        # The condition comes true on its own; so that it does after few texts more.
        await asyncio.sleep(0.002)


def same(found, expected):
    """Whether these are the expected vectors, of all texts at least once."""
    return (
        len(found) >= len(expected)
        and found.keys() == set(range(len(found)))
        and all(
            np.array_equal(values, expected[index % len(expected)])
            for index, values in found.items()
        )
    )
