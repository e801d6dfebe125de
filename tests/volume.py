"""A volume that machines mount, like Modal's: others see committed files when they reload."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class FolderVolume:
    """One machine's mount of a volume whose committed state is a folder."""

    def __init__(self, committed: Path, mount: Path) -> None:
        self.committed = committed
        self.mount = mount
        self.commits = 0
        self.reloads = 0
        self.failures = 0
        self.fails = False
        committed.mkdir(exist_ok=True)
        mount.mkdir()
        self._synced: set[Path] = set()

    def reload(self) -> None:
        self.reloads += 1
        self._fail_where_told()
        if any(path.is_relative_to(self.mount) for path in _opened()):
            raise RuntimeError("there are open files preventing the operation")
        self._copy(self.committed, self.mount, _files(self.mount) & self._synced)
        self._synced = _files(self.committed)

    def commit(self) -> None:
        self.commits += 1
        self._fail_where_told()
        self.background_commit()

    def background_commit(self) -> None:
        """Commit as Modal does now and then, with whatever is half written."""
        self._copy(self.mount, self.committed, self._synced)
        self._synced = _files(self.mount)

    def _fail_where_told(self) -> None:
        if self.fails:
            self.failures += 1
            raise ConnectionError("the volume is away")

    @staticmethod
    def _copy(source: Path, target: Path, known: set[Path]) -> None:
        here = _files(source)
        for path in here:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes((source / path).read_bytes())
        for path in known - here:
            (target / path).unlink(missing_ok=True)


def _opened() -> Iterator[Path]:
    """The open files of this process."""
    for link in os.scandir("/proc/self/fd"):
        # A thread may close it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            yield Path(os.readlink(link.path))


def _files(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
