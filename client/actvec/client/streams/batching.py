"""How many documents one message of a stream holds."""

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from actvec.client.records.model import Limits

# Documents and bytes per message: enough that its overhead vanishes, few enough that the first
# results of a stream come early.
MESSAGE_DOCUMENTS = 64
_MESSAGE_BYTES = 1 << 20


class Sized(Protocol):
    """An item that travels."""

    @property
    def size(self) -> int:
        """Bytes of its message."""


Item = TypeVar("Item", bound=Sized)


def batch_by_size(
    unsent: deque[Item],
    limits: Limits,
    *,
    most: int = MESSAGE_DOCUMENTS,
    fits: Callable[[Item], bool] = lambda _: True,
) -> list[Item]:
    """Take items for one message off the front: at least one, if the first fits.

    Args:
        unsent: Items in order.
        limits: The server's limits.
        most: Maximum number of items.
        fits: Whether an item may share this message; the first that may not ends it.
    """
    limit = min(_MESSAGE_BYTES, (limits.max_message_bytes or _MESSAGE_BYTES) // 2)
    batch: list[Item] = []
    size = 0
    while unsent and len(batch) < min(most, MESSAGE_DOCUMENTS) and fits(unsent[0]):
        size += unsent[0].size
        if batch and size > limit:
            break
        batch.append(unsent.popleft())
    return batch
