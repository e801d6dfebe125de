"""From characters to tokens: the tokens that a span of a text covers."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
"""The tokens of a span, ascending int64 `[n]`."""


def trimmed(text: str, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return where tokens begin and end in a text, int64 `[T, 2]`, without surrounding white space.

    Tokenizers differ in whether a token's offsets include its leading space. A token of white space
    only gets no width, at its end, as in tokenizers that trim.

    Args:
        text: The text.
        offsets: Begin and end of each token, in code points.
    """
    found = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    blank = np.zeros(len(text) + 1, dtype=bool)
    blank[: len(text)] = [character.isspace() for character in text]
    # For each place: the next character that is not blank, and the end of the last one before.
    places = np.arange(len(text) + 1)
    following = np.minimum.accumulate(np.where(blank, len(text), places)[::-1])[::-1]
    leading = np.concatenate([[0], np.maximum.accumulate(np.where(blank, 0, places + 1))[:-1]])
    starts = np.minimum(following[found[:, 0]], found[:, 1])
    ends = np.maximum(leading[found[:, 1]], starts)
    ends = np.where(starts == found[:, 1], found[:, 1], ends)
    return np.stack([starts, ends], axis=1)


def covered(offsets: NDArray[np.int64], parts: Iterable[tuple[int, int]]) -> Tokens:
    """Return the tokens whose characters overlap some parts of a text.

    Args:
        offsets: Begin and end of each token, trimmed, `[T, 2]`.
        parts: Begin and end of each part. A token without width belongs to the part that it ends
            in.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    wide = ends > starts
    inside = np.zeros(len(offsets), dtype=bool)
    for start, end in parts:
        inside |= np.where(wide, (starts < end) & (ends > start), (start < ends) & (ends <= end))
    return np.flatnonzero(inside)
