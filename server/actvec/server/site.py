"""Where a container finds its files and leaves them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from actvec.server.errors import RequestError
from actvec.server.means.replica import Replica, Volume, VolumeReplica


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
        """A folder of the local disk, shared through the same folder of the volume."""
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
        here.parent.mkdir(parents=True, exist_ok=True)
        if there.is_dir():
            shutil.copytree(there, here, dirs_exist_ok=True)
        else:
            shutil.copyfile(there, here)
        return here
