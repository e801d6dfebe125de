"""A data directory that several machines share, each with a copy on its own disk.

The server writes files to the local disk first, then moves them whole to the shared volume. Files
there never change: the content of means and checkpoints determines their names, and notes are
written once. So the names suffice for a comparison: a file on this side only is new here, a file on
the other side only is new there, and a file that was on both sides and is on one was removed on the
other. The only exception are a job's notes, which change under the same names if somebody restarts
the job; they are small, and every pull copies them.
"""

import shutil
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from actvec.server.errors import VolumeAwayError
from actvec.server.files import storing

_PARTIAL = ".partial-"
_NOTES = frozenset({"settings.json", "finished.json"})


class Replica(Protocol):
    """The shared side of a data directory. Call it off the event loop."""

    def pull(self, directory: Path) -> None:
        """Copy the files that others have stored in a folder, and remove those that they removed.

        Raises:
            StorageError: they cannot be read, or the volume is away for now.
        """

    def push(self, directory: Path) -> None:
        """Make a folder's files durable and visible to others before it returns.

        Raises:
            StorageError: this failed, or the volume is away for now; the next push tries again.
        """


class NoReplica:
    """A directory of one machine alone."""

    def pull(self, directory: Path) -> None:
        """Do nothing: there are no others."""

    def push(self, directory: Path) -> None:
        """Do nothing: the disk is durable."""


NO_REPLICA = NoReplica()


class Volume(Protocol):
    """The methods used of a `modal.Volume`."""

    def reload(self) -> None:
        """Show what others have committed; fails while one of its files is open."""

    def commit(self) -> None:
        """Make written files durable."""


class VolumeReplica:
    """Shares a data directory through a volume.

    The volume may commit at any time, also in the background. So a file keeps a partial name there
    until it is whole, and a record follows the file that it describes.

    Args:
        local: The data directory.
        mount: The mount point of the volume.
        volume: The volume.
    """

    def __init__(self, local: Path, mount: Path, volume: Volume) -> None:
        self._local = local
        self._mount = mount
        self._volume = volume
        # Files on both sides, as paths from the data directory.
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
                f"cannot make it durable on the volume: {error}; the next write tries again"
            ) from error


def _files(root: Path, folder: Path) -> set[Path]:
    """Whole files in a folder, as paths from `root`."""
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
            # Another thread removed it meanwhile, such as an old checkpoint.
            if (source / path).exists():
                raise
        finally:
            partial.unlink(missing_ok=True)


def _remove(paths: Iterable[Path], root: Path) -> None:
    for path in paths:
        (root / path).unlink(missing_ok=True)
