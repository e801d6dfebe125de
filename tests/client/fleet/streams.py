"""The stream that the workers are given."""

import contextlib

import numpy as np

TOKEN = "of-the-secret"  # noqa: S105 - of the tests
TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1940)]


async def vectors(client, *, after_first=lambda: None, **options):
    """A stream's vectors by index, each once; something is done after the first."""
    found = {}
    async with contextlib.aclosing(client.stream(TEXTS, mode="short", **options)) as results:
        async for result in results:
            if not found:
                after_first()
            assert result.index not in found
            found[result.index] = result.values
    return found


def same(found, expected):
    return found.keys() == expected.keys() and all(
        np.array_equal(found[index], values) for index, values in expected.items()
    )
