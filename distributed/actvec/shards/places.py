"""Where the sums of a shard are: in a folder, or in a store behind a local copy."""

import contextlib
import tempfile
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from actvec.client.bulk.remote import RemoteFolder, is_remote, naming_store, open_store
from actvec.client.errors import FailedPrecondition
from actvec.client.files import Content, given_path
from actvec.client.lock import locked
from actvec.client.stored.shard_folders import shard_names
from actvec.server.means.replica import NO_REPLICA, Replica

# The record of a shard that is done.
RECORD = "record.json"
JOBS, MEANS = "jobs", "means"

# Seconds between two commits of sums to a store: they are as large as the mean's file.
_COMMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Place:
    """The open folder of a shard.

    Attributes:
        folder: The folder, or the local copy.
        replica: Where else its files go.
        commit_every: The fewest seconds between two commits of sums.
    """

    folder: Path
    replica: Replica
    commit_every: float = 0.0


@contextlib.contextmanager
def opened(folder: str | Path) -> Iterator[Place]:
    """Open the folder of a shard, or the folder at a URL, for this process alone.

    Raises:
        Aborted: another process has it.
        InvalidArgument: the URL is of no known store.
        MissingExtra: the package that knows the store is not installed.
        OSError: it cannot be read or written to.
    """
    if not is_remote(folder):
        folder = given_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield Place(folder, NO_REPLICA)
        return
    remote = RemoteFolder(str(folder))
    remote.copy.mkdir(parents=True, exist_ok=True)
    with remote.naming(), locked(remote.copy), remote.owned():
        remote.download(_sums(remote.find()))
        replica = _StoreReplica(remote)
        done = (remote.copy / RECORD).exists()
        if not done:
            replica.upload(first=True)
        yield Place(remote.copy, replica, max(_COMMIT_SECONDS, remote.save_every))
        replica.upload(last=not done)


def finished_shards(folder: str | Path) -> Iterator[tuple[str, Path]]:
    """The shards of a folder, or of one at a URL, each downloaded for its turn.

    Yields:
        Where the shard is, for errors, and a folder with its record and means.

    Raises:
        FailedPrecondition: they are not 1 to N of one N.
        InvalidArgument: the URL is of no known store.
        MissingExtra: the package that knows the store is not installed.
        OSError: the store cannot be read.
    """
    if not is_remote(folder):
        folder = given_path(folder)
        for name in _all(folder, (path.name for path in folder.iterdir() if path.is_dir())):
            yield str(folder / name), folder / name
        return
    store = open_store(str(folder), "folder")
    with naming_store(store.url):
        found = store.find()
    for name in _all(store.url, (PurePosixPath(one).parts[0] for one in found if "/" in one)):
        of_shard = {one.removeprefix(f"{name}/") for one in found if one.startswith(f"{name}/")}
        with tempfile.TemporaryDirectory(prefix="actvec-") as temporary:
            for one in _sums(of_shard):
                if not one.startswith(f"{JOBS}/"):
                    path = Path(temporary, one)
                    path.parent.mkdir(exist_ok=True)
                    with naming_store(store.url):
                        store.get(f"{name}/{one}", path)
            yield f"{store.url}/{name}", Path(temporary)


class _StoreReplica:
    """A `Replica` in a store: every push uploads the folder's new files, in a safe order.

    A mean comes before its record and before the note that its job is finished, and the record of
    the shard last, so that a kill leaves what the shard continues from.
    """

    def __init__(self, remote: RemoteFolder) -> None:
        self._remote = remote
        remote.know(self._files())

    def pull(self, directory: Path) -> None:
        """Do nothing: only this process writes there."""

    def push(self, directory: Path) -> None:  # noqa: ARG002 - all folders of the shard
        """See `Replica.push`; a store that takes no change for now gets it with the next one."""
        self.upload()

    def upload(self, *, first: bool = False, last: bool = False) -> None:
        """Upload new files, and remove those that are gone."""
        here = self._files()
        gone = dict.fromkeys(sorted(self._remote.uploaded - here.keys()))
        self._remote.upload({**here, **gone}, first=first, last=last)

    def _files(self) -> dict[str, Hashable]:
        """The files in the copy in the order of their upload, each with its version."""
        copy = self._remote.copy
        names = (path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
        # Content determines the names of all but the notes.
        return {
            name: Content.of(copy / name) if name.endswith(".json") else True
            for name in sorted(_sums(names), key=_order)
        }


def _all(place: object, names: Iterator[str]) -> list[str]:
    shards = shard_names(names, place)
    if not shards:
        raise FailedPrecondition(
            f"{place} holds no shard; it should hold 1-of-N to N-of-N of one N"
        )
    return shards


def _sums(names: "Iterator[str] | set[str]") -> list[str]:
    """The names that are a shard's: its record, its means, and the files of its job."""
    parts = {name: PurePosixPath(name).parts for name in names}
    return [
        name
        for name, steps in parts.items()
        if (steps == (RECORD,) or (steps[0], len(steps)) in ((MEANS, 2), (JOBS, 3)))
        and ".." not in steps
        and not steps[-1].startswith(".")
    ]


def _order(name: str) -> tuple[int, str]:
    path = PurePosixPath(name)
    if path.parts[0] == MEANS:
        return path.suffix == ".json", name
    if path.parts[0] == JOBS:
        return 2 + (path.name == "finished.json"), name
    return 4, name
