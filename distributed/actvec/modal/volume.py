"""The files of a container, on its own disk and on the shared volume."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from actvec.server.errors import RequestError
from actvec.server.means.replica import Replica, Volume, VolumeReplica

# The shared folders of a data directory.
_SHARED = ("means", "jobs")


@dataclass(frozen=True)
class Site:
    """The files of a container.

    Attributes:
        local: A folder on its own disk.
        mount: The mount point of the volume that all containers share.
        volume: The volume.
    """

    local: Path
    mount: Path
    volume: Volume

    def replica(self, folder: Path = Path()) -> Replica:
        """Share a folder of the local disk through the same folder on the volume.

        Removes means and jobs left on the disk: pushed ones are on the volume, and others were
        never promised. With them present, a replica would take files that others have deleted since
        for new ones, and restore them for everybody. Call it once, before the folder is used.
        """
        for part in _SHARED:
            shutil.rmtree(self.local / folder / part, ignore_errors=True)
        return VolumeReplica(self.local / folder, self.mount / folder, self.volume)

    def corpus(self, name: str) -> Path:
        """Copy a corpus to the local disk: open files would keep the volume from reloading.

        Raises:
            RequestError: there is no corpus of this name.
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
        # Removes older files: a shard is every N-th of the files that exist now.
        shutil.rmtree(here.parent, ignore_errors=True)
        here.parent.mkdir(parents=True)
        if there.is_dir():
            shutil.copytree(there, here)
        else:
            shutil.copyfile(there, here)
        return here
