"""Folders of the shards of one corpus: which belong together, and which hold a document twice."""

import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actvec.client.errors import DataLoss, FailedPrecondition

_NAME = re.compile(r"([1-9][0-9]*)-of-([1-9][0-9]*)")
_SHARD = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")


def shard_names(names: Iterable[str], place: object) -> list[str]:
    """The names of the folders `1-of-N` to `N-of-N` among others, in order; empty if none is there.

    Examples:
        >>> shard_names(["2-of-2", "README.md", "1-of-2"], "vectors")
        ['1-of-2', '2-of-2']

    Args:
        names: The names in a folder.
        place: The folder, for errors.

    Raises:
        FailedPrecondition: they are of several N, or one is missing.
    """
    numbers = {(int(one[1]), int(one[2])) for one in map(_NAME.fullmatch, names) if one}
    totals = sorted({of for _, of in numbers})
    if len(totals) > 1:
        raise FailedPrecondition(
            f"{place} holds shards of {', '.join(map(str, totals))}; it should hold 1-of-N to"
            " N-of-N of one N, or documents would count twice"
        )
    for of in totals:
        every = range(1, of + 1)
        missing = [f"{number}/{of}" for number in every if (number, of) not in numbers]
        if missing:
            raise FailedPrecondition(f"{place} has no shard {', '.join(missing)}; run those first")
        return [f"{number}-of-{of}" for number in every]
    return []


def check_disjoint(folders: Sequence[Path]) -> None:
    """Check that no document of a corpus is in two folders, by the manifests of their jobs.

    A folder without a manifest, or of a job that read a pipe, could be of any corpus.

    Raises:
        FailedPrecondition: two folders hold shards that overlap; the message names both.
        DataLoss: a manifest is damaged.
    """
    if len(folders) < 2:
        return
    shards = [shard for folder in folders if (shard := _shard_of(folder))]
    for one, other in itertools.combinations(shards, 2):
        if one.overlaps(other):
            raise FailedPrecondition(
                f"{one.folder} holds {one} and {other.folder} {other} of the same corpus:"
                " documents would count twice; load shards of one N, each once"
            )


@dataclass(frozen=True)
class _Shard:
    """Every `of`-th document of a corpus, from the `number`-th on."""

    folder: Path
    corpus: str
    number: int
    of: int

    def __str__(self) -> str:
        return "all" if self.of == 1 else f"shard {self.number}/{self.of}"

    def overlaps(self, other: "_Shard") -> bool:
        """Whether both hold the same documents of a corpus that is long enough."""
        apart = (self.number - other.number) % math.gcd(self.of, other.of)
        return self.corpus == other.corpus and not apart


def _shard_of(folder: Path) -> _Shard | None:
    path = folder / "manifest.json"
    try:
        source = json.loads(path.read_bytes())["input"]
        if source is None:
            return None
        shard = _SHARD.fullmatch(source.pop("shard", "1/1"))
        source.pop("path", None)
        source.get("columns", {}).pop("keep", None)
        return shard and _Shard(folder, json.dumps(source), int(shard[1]), int(shard[2]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataLoss(f"{path} is not what was written there: {error}") from error
