"""The names of means and of the jobs that make them."""

import re

from actvec.server.errors import InputError

LATEST = "latest"
"""Names the newest mean that can center a request."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked_name(name: str) -> str:
    """Check that a name of a mean or job is safe as a file name.

    Raises:
        InputError: it is not.
    """
    if not _NAME.fullmatch(name) or name == LATEST:
        raise InputError(
            "name",
            f"is {name!r}; use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter "
            f"or digit, and not {LATEST!r}",
        )
    return name
