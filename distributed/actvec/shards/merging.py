"""The exact merge of the parts of a corpus mean."""

from collections.abc import Iterable

from actvec.server.errors import RequestError
from actvec.server.means.format import decode
from actvec.server.means.merging import Merge
from actvec.server.means.naming import checked_name
from actvec.server.means.record import MeanRecord, SkippedDocuments, by_reason
from actvec.server.means.store import computed


class PartMerger:
    """Merges parts as they arrive; memory holds one beside the sums.

    Args:
        name: The mean's name.

    Raises:
        InputError: the name is invalid.
    """

    def __init__(self, name: str) -> None:
        self._name = checked_name(name)
        self._merge = Merge()

    def add(self, file: bytes, skipped: Iterable[SkippedDocuments]) -> None:
        """Add a part, as `SumMaker.part` makes it: a file, or the skips of a part without one.

        Raises:
            InputError: the file is not one of a mean.
            MeanMismatchError: it is of another model or other settings than earlier parts, or of
                the same documents as one of them.
        """
        if file:
            part = decode(file)
            self._merge.add(part.record, part)
        else:
            self._merge.skip(skipped)

    def finish(self) -> tuple[MeanRecord, bytes]:
        """Return the record of the mean, and its file.

        Raises:
            RequestError: no document is usable.
        """
        if self._merge.total is None:
            why = "; ".join(describe_skipped(self._merge.skipped))
            raise RequestError("corpus", f"has no document to average: {why}")
        content, record = computed(self._merge.total, self._merge.record(self._name))
        return record, content


def describe_skipped(skipped: Iterable[SkippedDocuments]) -> list[str]:
    """Describe skipped documents, one line per reason."""
    return [
        f"skipped for {one.reason}: {one.documents:,}; the first is {one.first_id}:"
        f" {one.first_message}"
        for one in by_reason(skipped)
    ]
