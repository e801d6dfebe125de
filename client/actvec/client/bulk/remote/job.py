"""A job's folder in a store."""

import contextlib
from collections.abc import Hashable, Iterator
from pathlib import PurePosixPath

from actvec.client.bulk.checksums import count_versions
from actvec.client.bulk.remote.folder import RemoteFolder
from actvec.client.errors import FailedPrecondition
from actvec.client.files import Content

_CHECKSUMS, _ERRORS, _MANIFEST = "checksums.jsonl", "errors.jsonl", "manifest.json"


class RemoteJob(RemoteFolder):
    """A `RemoteFolder` that holds a state that can be resumed at any moment.

    Checksums come first, so that every version of a file matches a line, then the vectors, then the
    errors, and the manifest last.
    """

    @contextlib.contextmanager
    def begun(self, *, resume: bool) -> Iterator[None]:
        """Own the folder, with its files in the copy; in the end keep manifest and errors there.

        The caller holds the lock of the copy.

        Args:
            resume: Whether to download the vectors too.

        Raises:
            Aborted: another process owns the folder.
            FailedPrecondition: it holds vectors without a manifest.
            OSError: the store cannot be read or written to.
        """
        with self.owned(kept=(_MANIFEST, _ERRORS)):
            found = self.find()
            if _MANIFEST not in found and any(name.startswith("vectors") for name in found):
                raise FailedPrecondition(
                    f"{self.url} holds vectors without {_MANIFEST}; give another folder",
                    setting="out",
                )
            self.download({_CHECKSUMS, _ERRORS, _MANIFEST} & found)
            if resume:
                named = count_versions(self.copy / _CHECKSUMS).keys()
                for name in named:
                    if ".." in PurePosixPath(name).parts or name.startswith("/"):
                        raise FailedPrecondition(f"{self.url}/{_CHECKSUMS} names {name!a}")
                self.download(named & found)
                self.know(self._files())
            yield

    def save(self, *, first: bool = False, last: bool = False) -> bool:
        """Upload new and changed files; see `upload`."""
        return self.upload(self._files(), first=first, last=last)

    def _files(self) -> dict[str, Hashable]:
        """The files in the copy in the order of their upload, each with its version."""
        versions = count_versions(self.copy / _CHECKSUMS)
        vectors = {name: count for name, count in versions.items() if (self.copy / name).exists()}
        return (
            {_CHECKSUMS: self._note(_CHECKSUMS)}
            | vectors
            | {name: self._note(name) for name in (_ERRORS, _MANIFEST)}
        )

    def _note(self, name: str) -> Hashable:
        path = self.copy / name
        return Content.of(path) if path.exists() else None
