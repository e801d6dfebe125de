"""Errors of pools, and of documents that a pool does not fit.

```
ValueError
 ├── PoolError            invalid pools: unknown, malformed or named twice
 └── DocumentError        a document that a pool does not fit
      ├── NoSpanError      it has no span of that name
      ├── EmptySpanError   its span covers no pooled token
      ├── PositionError    it has no token at the position
      └── NoTokenError     it has no token left to pool
```
"""

from collections.abc import Iterable


class PoolError(ValueError):
    """An invalid pool or list of pools."""


class DocumentError(ValueError):
    """A document does not fit a pool; other documents may."""


class NoSpanError(DocumentError):
    """The document has no span of the pool's name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        has = ", ".join(sorted(known)) or "none"
        super().__init__(f"the document has no span {name!r} (its spans: {has})")


class EmptySpanError(DocumentError):
    """The span covers no pooled token."""

    def __init__(self, name: str, *, cut: bool) -> None:
        why = "all of its tokens were cut off" if cut else "it is empty or white space"
        super().__init__(f"span {name!r} covers no token of the document: {why}")


class PositionError(DocumentError):
    """The document has no token at the position, or does not pool it."""

    def __init__(self, position: int, tokens: int, *, dropped: bool = False) -> None:
        super().__init__(
            f"token {position} of the document is not pooled: it lies before the {tokens} last "
            "tokens, which are all that the corpus mean covers"
            if dropped
            else f"the document has no token {position}: it has {tokens} "
            f"(0 to {tokens - 1}, or -1 to {-tokens} from the end)"
        )


class NoTokenError(DocumentError):
    """The pool excludes every token of the document."""

    def __init__(self, pool: str) -> None:
        super().__init__(f"pool {pool!r} excludes BOS, and the document has no other token")
