"""Which documents are done."""


class IndexSet:
    """Numbers of documents, a bit for each up to the largest: 125 kB for a million of them.

    It makes no difference in what order they come.
    """

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, index: int) -> bool:
        """Add a number, from 0; whether it is new.

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
