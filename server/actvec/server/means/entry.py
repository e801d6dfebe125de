"""The record of a mean in its store: a JSON file, with the mean's number in the store."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from actvec.server.means.record import MeanRecord
from actvec.server.means.record_json import decode_record, encode_record

# The key that the store adds to those of the record; older versions of actvec ignore it.
_NUMBER = "storeNumber"


@dataclass(frozen=True)
class Entry:
    """A record and its place in the order of the store.

    Numbers count up and order the means, since a clock may be set back. Means in stores of earlier
    versions have no number: they get 0, come before all others, and sort by their time.

    Attributes:
        number: From 1; 0 for a mean without one.
        record: The mean's record.
    """

    number: int
    record: MeanRecord

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Decode the bytes of an entry's file.

        Raises:
            ValueError: they are not an entry.
        """
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        number = values.pop(_NUMBER, 0)
        if not isinstance(number, int):
            raise ValueError(f"its {_NUMBER} is {number!r}")
        return cls(number, decode_record(values))

    def encode(self) -> bytes:
        """Encode the bytes of its file."""
        return json.dumps(encode_record(self.record) | {_NUMBER: self.number}, indent=2).encode()

    def age(self) -> tuple[int, datetime, str]:
        """The sort key of means, oldest first.

        Machines that share a store may assign a number twice; then the time decides.
        """
        created = self.record.created_at or datetime.fromtimestamp(0, UTC)
        return self.number, created, self.record.id
