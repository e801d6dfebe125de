"""Selects the texts of a dataset for a corpus, and counts the others by reason."""

import hashlib
from dataclasses import dataclass
from typing import Literal, Self

# The result for a text: the name of an attribute of `Counts`.
Verdict = Literal["unreadable", "empty", "too_short", "too_long", "duplicate", "accepted"]


@dataclass
class Counts:
    """Texts that were read, by result; each counts once, under the first result that applies.

    Attributes:
        unreadable: Rows without a text: not JSON, no such column, not a string, not UTF-8.
        empty: Texts without a word.
        too_short: Texts with fewer words than required.
        too_long: Texts with more words than allowed.
        duplicate: Texts equal, byte for byte, to an accepted one.
        accepted: All other texts.
    """

    unreadable: int = 0
    empty: int = 0
    too_short: int = 0
    too_long: int = 0
    duplicate: int = 0
    accepted: int = 0

    @property
    def seen(self) -> int:
        """Number of rows read."""
        return sum(vars(self).values())

    @property
    def refusals(self) -> str:
        """Describe the counts of texts that were not accepted."""
        parts = dict(vars(self))
        del parts["accepted"]
        # Most datasets have none.
        if not self.unreadable:
            del parts["unreadable"]
        return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in parts.items())

    def add(self, verdict: Verdict) -> None:
        """Count one text."""
        setattr(self, verdict, getattr(self, verdict) + 1)

    def to_dict(self) -> dict[str, int]:
        """The counts as JSON values, `seen` first."""
        return {"seen": self.seen} | vars(self)

    @classmethod
    def from_dict(cls, counts: dict[str, int]) -> Self:
        """Parse the result of `to_dict`.

        Raises:
            TypeError: it is not such a result.
        """
        return cls(**{name: count for name, count in counts.items() if name != "seen"})


@dataclass(frozen=True)
class WordLimits:
    """Limits on a text's words; white space separates words.

    Attributes:
        least: Minimum number of words.
        most: Maximum number of words; None for no limit.

    Raises:
        ValueError: `least` is below 1, or above `most`.
    """

    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        if self.least < 1 or (self.most is not None and self.most < self.least):
            raise ValueError(
                f"no text has at least {self.least} and at most {self.most} words: the first"
                " must be 1 or more, and the second no smaller"
            )


class Acceptance:
    """Judges texts in turn. Keeps 16 bytes per accepted text."""

    def __init__(self, words: WordLimits) -> None:
        """Keep the limits on a text's words."""
        self._words = words
        self._accepted: set[bytes] = set()

    def judge(self, text: str) -> Verdict:
        """Return the result for a readable text."""
        words = count_words(text)
        if words == 0:
            return "empty"
        if words < self._words.least:
            return "too_short"
        if self._words.most is not None and words > self._words.most:
            return "too_long"
        return "accepted" if self.remember(text) else "duplicate"

    def remember(self, text: str) -> bool:
        """Remember an accepted text; return whether it is new."""
        before = len(self._accepted)
        self._accepted.add(text_digest(text))
        return len(self._accepted) > before


def count_words(text: str) -> int:
    """Count the words of a text; white space separates words."""
    return len(text.split())


def text_digest(text: str) -> bytes:
    """The first 16 bytes of the SHA-256 of a text's UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
