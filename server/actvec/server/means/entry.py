"""The record of a mean as its store keeps it: a JSON file, with the mean's number in the store."""

import json
from dataclasses import dataclass
from typing import Self

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from actvec.v1.means_pb2 import CorpusMean

# The key beside those of the record, which older versions of actvec ignore.
_NUMBER = "storeNumber"


@dataclass(frozen=True)
class Entry:
    """A record and its place in the order of the store.

    Numbers count up and order the means, since a clock may be set back. Stores of before had none:
    their means have 0, come before all others, and are in the order of their time.

    Attributes:
        number: From 1; 0 for a mean without one.
        record: What the contract answers with.
    """

    number: int
    record: CorpusMean

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """The entry in the bytes of a file.

        Raises:
            ValueError: they are none.
        """
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        number = values.pop(_NUMBER, 0)
        if not isinstance(number, int):
            raise ValueError(f"its {_NUMBER} is {number!r}")
        try:
            return cls(number, ParseDict(values, CorpusMean(), ignore_unknown_fields=True))
        except ParseError as error:
            raise ValueError(str(error)) from error

    def encode(self) -> bytes:
        """The bytes of its file."""
        values = MessageToDict(self.record) | {_NUMBER: self.number}
        return json.dumps(values, indent=2).encode()

    def age(self) -> tuple[int, int, str]:
        """What means are sorted by, the oldest first.

        Machines that share a store may give one number twice; then the time decides.
        """
        return self.number, self.record.created_at.ToNanoseconds(), self.record.id
