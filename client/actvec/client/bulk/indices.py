"""Sets of document numbers, and counts of repeated ids."""

# Number of ids to remember: about 10 MB, however large the corpus.
_IDS = 100_000


class IndexSet:
    """A set of document numbers, one bit per number up to the largest: 125 kB per million.

    The order of insertion does not matter.
    """

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, index: int) -> bool:
        """Add a number, from 0; return whether it is new.

        Raises:
            ValueError: it is negative.
        """
        if index < 0:
            raise ValueError(f"documents are numbered from 0, not {index}")
        byte, bit = index >> 3, 1 << (index & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        self._count += 1
        return True

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int) or not 0 <= index >> 3 < len(self._bits):
            return False
        return bool(self._bits[index >> 3] & 1 << (index & 7))

    def __len__(self) -> int:
        return self._count


class RepeatedIds:
    """Counts documents that repeat the id of an earlier one, among the first 100,000.

    Attributes:
        count: Number of such documents.
        first: The first such id; empty if there is none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self._hashes: set[int] = set()
        self._added = 0

    def add(self, document_id: str) -> None:
        """Record the id of one more document."""
        if self._added == _IDS:
            return
        self._added += 1
        self._hashes.add(hash(document_id))
        if len(self._hashes) + self.count < self._added:
            self.count += 1
            self.first = self.first or document_id
