"""Counts of the answers of calls, for the log and for metrics."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc

OK = grpc.StatusCode.OK.name


@dataclass
class Answers:
    """Counts of answers.

    Attributes:
        documents: How many, by the name of their code: `OK` for those with a vector or in a mean.
        tokens: Tokens of those that are `OK`, before any truncation for vectors.
        commits: Commits of a mean that the client was told of.
    """

    documents: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    commits: int = 0

    def add(self, more: "Answers") -> None:
        """Take over the counts since the last time."""
        self.documents += more.documents
        self.tokens += more.tokens
        self.commits += more.commits

    @property
    def failed(self) -> int:
        """Documents that are not `OK`."""
        return self.documents.total() - self.documents[OK]


CountAnswers: TypeAlias = Callable[[object], Answers | None]
"""Counts the responses of one call; None for one that answers no document and makes no commit."""
