"""Object stores that fsspec knows: S3, Google Cloud Storage, and the memory of this process."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from actvec.client.errors import MissingExtra
from actvec.client.extras import import_extra

# The packages that know the stores where an object appears whole.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "memory": "fsspec"}


class ObjectStore:
    """A `Store` where each object appears whole or not at all.

    Attributes:
        url: See `Store`.
        atomic: See `Store`.
        save_every: See `Store`.
    """

    atomic = False
    save_every = 0.0

    def __init__(self, url: str) -> None:
        """Find the package for a URL, without reading or writing anything.

        Raises:
            MissingExtra: fsspec is not installed, or the package that knows the store.
        """
        self.url = url
        core = import_extra("fsspec.core", "remote")
        try:
            self._files, self._root = core.url_to_fs(url)
        except ImportError as error:
            package = PACKAGES[url.partition("://")[0]]
            raise MissingExtra(
                f"{url} needs {package}, which is not installed: pip install {package}"
            ) from error

    def look(self) -> None:
        """See `Store.look`."""
        self._files.invalidate_cache()

    def find(self) -> set[str]:
        """See `Store.find`."""
        self.look()
        return {path[len(self._root) :].lstrip("/") for path in self._files.find(self._root)}

    def read(self, name: str) -> bytes | None:
        """See `Store.read`."""
        try:
            content: bytes = self._files.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def get(self, name: str, path: Path) -> None:
        """See `Store.get`."""
        self._files.get_file(self._path(name), str(path))

    def create(self, name: str, content: bytes) -> bool:
        """See `Store.create`."""
        try:
            self._files.pipe_file(self._path(name), content, mode="create")
        except FileExistsError:
            return False
        return True

    def change(self, files: Mapping[str, Path | None]) -> bool:
        """See `Store.change`."""
        for name, path in files.items():
            if path is not None:
                self._files.put_file(str(path), self._path(name))
                continue
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))
        return True

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
