"""The whole zoo, by name."""

from collections.abc import Mapping

from tests.zoo.cases import CASES
from tests.zoo.entries import Entry
from tests.zoo.families import FAMILIES

ZOO: tuple[Entry, ...] = (*FAMILIES, *CASES)
BY_NAME: Mapping[str, Entry] = {entry.name: entry for entry in ZOO}

if len(BY_NAME) != len(ZOO):
    raise ValueError("two entries of the zoo have one name")
