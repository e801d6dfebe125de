"""Which texts of a dataset a corpus takes, and how many it did not and why."""

import hashlib
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self


class Verdict(StrEnum):
    """What becomes of a text; the values are the names of `Counts`."""

    EMPTY = "empty"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    DUPLICATE = "duplicate"
    ACCEPTED = "accepted"


@dataclass
class Counts:
    """What became of the texts that were read; each counts once, under the first that applies.

    Attributes:
        empty: Without a word.
        too_short: Of fewer words than wanted.
        too_long: Of more words than wanted.
        duplicate: Equal, to the byte, to one that was accepted.
        accepted: The others.
    """

    empty: int = 0
    too_short: int = 0
    too_long: int = 0
    duplicate: int = 0
    accepted: int = 0

    @property
    def seen(self) -> int:
        """Texts that were read."""
        return self.empty + self.too_short + self.too_long + self.duplicate + self.accepted

    def add(self, verdict: Verdict) -> None:
        """Count one."""
        setattr(self, verdict, getattr(self, verdict) + 1)

    def to_dict(self) -> dict[str, int]:
        """The counts as JSON takes them, `seen` first."""
        return {"seen": self.seen} | asdict(self)

    @classmethod
    def from_dict(cls, counts: dict[str, int]) -> Self:
        """The counts that `to_dict` gave.

        Raises:
            KeyError: one is missing.
        """
        return cls(**{verdict.value: counts[verdict] for verdict in Verdict})


@dataclass(frozen=True)
class WordLimits:
    """How many words a text may have; words are what stands between white space.

    Attributes:
        least: At least so many.
        most: At most so many; None without a bound.

    Raises:
        ValueError: `least` is below 1, or above `most`.
    """

    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        if self.least < 1 or (self.most is not None and self.most < self.least):
            raise ValueError(
                f"a text of at least {self.least} and at most {self.most} words cannot be; the"
                " first is 1 or more, the second no smaller"
            )


class Acceptance:
    """Judges texts, one after the other. Remembers 16 bytes of each that it accepted."""

    def __init__(self, words: WordLimits) -> None:
        """`words`: how many are accepted."""
        self._words = words
        self._accepted: set[bytes] = set()

    def judge(self, text: str | None) -> Verdict:
        """What becomes of a text; None, as datasets give for a missing one, is empty."""
        words = count_words(text or "")
        if text is None or words == 0:
            return Verdict.EMPTY
        if words < self._words.least:
            return Verdict.TOO_SHORT
        if self._words.most is not None and words > self._words.most:
            return Verdict.TOO_LONG
        if not self.remember(text):
            return Verdict.DUPLICATE
        return Verdict.ACCEPTED

    def remember(self, text: str) -> bool:
        """Take note of an accepted text; whether it is a new one."""
        digest = text_digest(text)
        before = len(self._accepted)
        self._accepted.add(digest)
        return len(self._accepted) > before


def count_words(text: str) -> int:
    """Words in a text: what stands between white space."""
    return len(text.split())


def text_digest(text: str) -> bytes:
    """The first 16 bytes of the SHA-256 of a text's UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
