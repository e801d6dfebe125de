"""Documents by their labels."""

from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.records.columns import is_missing

# Labels that an error names.
_MOST_NAMES = 8


@dataclass(frozen=True, eq=False)
class TwoLabels:
    """The documents of two labels.

    Attributes:
        positive: The one label.
        negative: The other; `rest` for all other labels.
        is_positive: Which of the N documents have the one, bool `[N]`.
        is_negative: Which have the other.
    """

    positive: str
    negative: str
    is_positive: NDArray[np.bool_]
    is_negative: NDArray[np.bool_]

    @property
    def counts(self) -> tuple[int, int]:
        """Documents of the one and of the other."""
        return int(self.is_positive.sum()), int(self.is_negative.sum())


def as_text(labels: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Labels `[N]` as people write them, `true` and `3`; None for a document without one."""
    found = np.empty(len(labels), object)
    found[:] = [_text(label) for label in labels]
    return found


def check_labels(labels: Sequence[Any] | NDArray[Any], vectors: Sized) -> None:
    """Check that there is a label per vector: with one more, all that follow would be another's.

    Raises:
        InvalidArgument: there is not.
    """
    if len(labels) != len(vectors):
        raise InvalidArgument(
            f"{len(labels):,} labels do not fit {len(vectors):,} vectors; give one for each vector,"
            " None for a document without one"
        )


def two_labels(
    labels: Sequence[Any] | NDArray[Any], positive: str | None = None, negative: str | None = None
) -> TwoLabels:
    """The documents that are compared.

    Args:
        labels: A label per document, None for none.
        positive: One label. Default: of two labels, the later in alphabetical order (`true`, `1`).
        negative: The other. Default: all other labels.

    Raises:
        InvalidArgument: there is no such label, or neither is named and there are not two.
    """
    texts = as_text(labels)
    counts = Counter(text for text in texts if text is not None)
    for name, wanted in (("positive", positive), ("negative", negative)):
        if wanted is not None and wanted not in counts:
            raise InvalidArgument(
                f"no document has the label {wanted!r}; there are: {_named(counts)}", setting=name
            )
    if len(counts) < 2:
        raise InvalidArgument(f"two labels are needed; there are: {_named(counts) or 'none'}")
    if positive is None:
        others = sorted(set(counts) - {negative})
        if len(others) > 2 - (negative is not None):
            raise InvalidArgument(
                f"which of the labels is the positive one? There are: {_named(counts)}",
                setting="positive",
            )
        positive = others[-1]
    if positive == negative:
        raise InvalidArgument(
            f"both labels are {positive!r}; name two different ones", setting="negative"
        )
    rest = sorted(set(counts) - {positive})
    if negative is None and len(rest) == 1:
        negative = rest[0]
    is_negative = np.isin(texts, rest) if negative is None else texts == negative
    return TwoLabels(
        positive, "rest" if negative is None else negative, texts == positive, is_negative
    )


def _text(label: Any) -> str | None:
    if is_missing(label):
        return None
    return str(bool(label)).lower() if isinstance(label, bool | np.bool_) else str(label)


def _named(counts: Counter[str]) -> str:
    shown = [f"{name} ({count:,})" for name, count in counts.most_common(_MOST_NAMES)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
