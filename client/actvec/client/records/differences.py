"""The differences between two records."""

from collections.abc import Mapping
from typing import Any


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Describe the differences between two records, for people; empty if they are equal."""
    names = sorted(there.keys() | here.keys())
    return "; ".join(
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in names
        if there.get(name) != here.get(name)
    )
