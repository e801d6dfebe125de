"""A data directory that several machines share, each with a copy on its own disk.

Files are written to the local disk as ever, then moved whole to where all see them. None is changed
once it is there: means and checkpoints are named by their content, notes are written once. So it is
enough to know which files are on both sides: what is here alone is new here, what is there alone is
new there, and what is gone on one side was removed on it. A job's notes alone can be others than
before under the same names, where somebody has begun it anew; they are small, and always brought.
"""

import shutil
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from actvec.server.errors import VolumeAwayError
from actvec.server.means.whole import storing

_PARTIAL = ".partial-"
_NOTES = frozenset({"settings.json", "finished.json"})


class Replica(Protocol):
    """Where a data directory's folders are shared. Call it off the event loop."""

    def pull(self, directory: Path) -> None:
        """Bring a folder's files that others have stored, and remove those that they removed.

        Raises:
            StorageError: they cannot be read, or the volume is away for now.
        """

    def push(self, directory: Path) -> None:
        """Make a folder's files durable, and seen by others; returns when they are.

        Raises:
            StorageError: they are not, or the volume is away for now; they will be with the next
                push.
        """


class NoReplica:
    """The directory is of one machine alone."""

    def pull(self, directory: Path) -> None:
        """There are no others."""

    def push(self, directory: Path) -> None:
        """What is on the disk is durable."""


NO_REPLICA = NoReplica()


class Volume(Protocol):
    """What of a `modal.Volume` is needed."""

    def reload(self) -> None:
        """Show what others have committed; fails while a file of it is open."""

    def commit(self) -> None:
        """Make what was written durable."""


class VolumeReplica:
    """Shares a data directory through a volume.

    A commit of the volume may happen at any time, in the background too. Therefore a file has a
    partial name there until it is whole, and a record comes after what it is the record of.

    Args:
        local: The data directory.
        mount: Where the volume is mounted.
        volume: The volume.
    """

    def __init__(self, local: Path, mount: Path, volume: Volume) -> None:
        self._local = local
        self._mount = mount
        self._volume = volume
        # Paths, from the data directory, of files that are on both sides.
        self._shared: set[Path] = set()
        self._lock = threading.Lock()

    def pull(self, directory: Path) -> None:
        """See `Replica.pull`."""
        folder = directory.relative_to(self._local)
        with self._lock, storing(f"what others have in {folder}"):
            self._reload()
            there, before = _files(self._mount, folder), self._in(folder)
            wanted = {path for path in there if path not in before or path.name in _NOTES}
            _copy(sorted(wanted, key=_records_last), self._mount, self._local)
            _remove(sorted(before - there, key=_records_first), self._local)
            self._shared = (self._shared - before) | there

    def push(self, directory: Path) -> None:
        """See `Replica.push`."""
        folder = directory.relative_to(self._local)
        with self._lock, storing(f"{folder} where other workers find it"):
            here, before = _files(self._local, folder), self._in(folder)
            _copy(sorted(here - before, key=_records_last), self._local, self._mount)
            _remove(sorted(before - here, key=_records_first), self._mount)
            self._commit()
            self._shared = (self._shared - before) | here

    def _in(self, folder: Path) -> set[Path]:
        return {path for path in self._shared if path.parent == folder}

    def _reload(self) -> None:
        try:
            self._volume.reload()
        except Exception as error:  # whatever the volume's library raises
            raise VolumeAwayError(f"cannot see what other workers have stored: {error}") from error

    def _commit(self) -> None:
        try:
            self._volume.commit()
        except Exception as error:  # whatever the volume's library raises
            raise VolumeAwayError(
                f"cannot make it durable on the volume: {error}; it is tried again with the next"
            ) from error


def _files(root: Path, folder: Path) -> set[Path]:
    """Whole files in a folder, by their paths from `root`."""
    try:
        found = list((root / folder).iterdir())
    except FileNotFoundError:
        return set()
    return {path.relative_to(root) for path in found if not path.name.startswith(_PARTIAL)}


def _records_last(path: Path) -> tuple[bool, Path]:
    return path.suffix == ".json", path


def _records_first(path: Path) -> tuple[bool, Path]:
    return path.suffix != ".json", path


def _copy(paths: Iterable[Path], source: Path, target: Path) -> None:
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        partial = (target / path).with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
        try:
            shutil.copyfile(source / path, partial)
            partial.replace(target / path)
        except FileNotFoundError:
            # Removed in between by another thread, as an old checkpoint is.
            if (source / path).exists():
                raise
        finally:
            partial.unlink(missing_ok=True)


def _remove(paths: Iterable[Path], root: Path) -> None:
    for path in paths:
        (root / path).unlink(missing_ok=True)
