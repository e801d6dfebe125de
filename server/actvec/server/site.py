"""Where a container finds its files and leaves them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from actvec.server.errors import RequestError
from actvec.server.means.replica import Replica, Volume, VolumeReplica

# What a data directory shares, and nothing else of it.
_SHARED = ("means", "jobs")


@dataclass(frozen=True)
class Site:
    """Where a container's files are.

    Attributes:
        local: A folder on its own disk.
        mount: Where the volume is mounted that all containers share.
        volume: The volume.
    """

    local: Path
    mount: Path
    volume: Volume

    def replica(self, folder: Path = Path()) -> Replica:
        """A folder of the local disk, shared through the same folder of the volume.

        Means and jobs that the disk still has are removed: what was pushed is on the volume, what
        was not was never promised. A replica that begins beside them would take what others have
        deleted since for new here, and bring it back for all. Ask for it before they are used, and
        once.
        """
        for part in _SHARED:
            shutil.rmtree(self.local / folder / part, ignore_errors=True)
        return VolumeReplica(self.local / folder, self.mount / folder, self.volume)

    def corpus(self, name: str) -> Path:
        """A corpus of the volume, on the local disk: open files would keep it from reloading.

        Raises:
            RequestError: there is none of this name.
        """
        there, here = self.mount / "corpora" / name, self.local / "corpora" / name
        self.volume.reload()
        if Path(name).name != name or not there.exists():
            known = sorted(path.name for path in (self.mount / "corpora").glob("*"))
            raise RequestError(
                "corpus",
                f"names a file or folder in corpora/ of the volume; there is no {name!r}, but:"
                f" {', '.join(known) or 'nothing'}",
            )
        # Whatever was here before: a shard is every N-th file, of those that are there now.
        shutil.rmtree(here.parent, ignore_errors=True)
        here.parent.mkdir(parents=True)
        if there.is_dir():
            shutil.copytree(there, here)
        else:
            shutil.copyfile(there, here)
        return here
