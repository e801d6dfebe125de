"""A folder in a store: a local copy, uploaded at each save."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from actvec.client.bulk.manifest import now
from actvec.client.bulk.remote.changing import change
from actvec.client.bulk.remote.opening import open_store
from actvec.client.bulk.remote.store import naming_store
from actvec.client.errors import Aborted, ActvecError

_OWNER = "owner.json"


class RemoteFolder:
    """A folder in a store, and its local copy, where a job reads and writes.

    Attributes:
        url: The folder's URL, such as `s3://bucket/vectors`.
        copy: The local copy, in the system's folder for temporary files.
        atomic: Whether the files of an upload appear together, or else in their order.
        save_every: The fewest seconds between two uploads.
    """

    def __init__(self, url: str) -> None:
        """Find the package for a URL, without reading or writing anything.

        Raises:
            InvalidArgument: the URL is not of a known store.
            MissingExtra: the package that knows the store is not installed.
        """
        self._store = open_store(url)
        self.url = self._store.url
        self.atomic = self._store.atomic
        self.save_every = self._store.save_every
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.copy = Path(tempfile.gettempdir(), f"actvec-{os.getuid()}-{digest}")
        self._uploaded: dict[str, Hashable] = {}
        self._owner = {
            "token": secrets.token_hex(16),
            "host": socket.gethostname(),
            "copy": str(self.copy),
            "pid": os.getpid(),
        }
        self._broken = ""

    @contextlib.contextmanager
    def owned(self, *, kept: Iterable[str] = ()) -> Iterator[None]:
        """Own the folder, with an empty copy; in the end remove the files from the copy.

        The caller holds the lock of the copy.

        Args:
            kept: The names of files that stay in the copy.

        Raises:
            Aborted: another process owns the folder.
            OSError: the store cannot be read or written to.
        """
        # Others write to the folder of temporary files too, and the copy is emptied.
        if self.copy.is_symlink() or self.copy.stat().st_uid != os.getuid():
            raise PermissionError(f"{self.copy} is a link, or belongs to another user; remove it")
        self.copy.chmod(0o700)
        self._clear()
        self._uploaded, self._broken = {}, ""
        with self._asking():
            self._claim()
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._release()
            raise
        self._release()
        self._clear(*kept)

    def find(self) -> set[str]:
        """The names of all files in the folder.

        Raises:
            OSError: the store cannot be read.
        """
        with self._asking():
            return self._store.find() - {_OWNER}

    def download(self, names: Iterable[str]) -> None:
        """Copy files of the folder to the copy.

        Raises:
            OSError: the store cannot be read, or the disk is full.
        """
        with self._asking():
            for name in names:
                (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
                self._store.get(name, self.copy / name)

    @property
    def uploaded(self) -> set[str]:
        """The names of the files that this process knows to be in the folder."""
        return {name for name, version in self._uploaded.items() if version is not None}

    def know(self, files: Mapping[str, Hashable]) -> None:
        """Take files for uploaded in these versions."""
        self._uploaded |= files

    def upload(
        self, files: Mapping[str, Hashable], *, first: bool = False, last: bool = False
    ) -> bool:
        """Upload new and changed files, in their order.

        Args:
            files: A version of each file; None if the folder should not have it.
            first: Whether to show other processes at once that the folder is owned.
            last: Whether the folder needs no owner from now on.

        Returns:
            Whether it was done. If not, the store takes no change for now, and nothing was lost;
            the first upload and the last one wait for it.

        Raises:
            Aborted: another process owns the folder now.
            OSError: the store cannot be written to.
        """
        new = {
            name: version for name, version in files.items() if self._uploaded.get(name) != version
        }
        if not (new or first or last):
            return True
        changes = {
            name: None if version is None else self.copy / name for name, version in new.items()
        }
        if last:
            changes[_OWNER] = None
        with self._asking():
            done = change(self._store, changes, self._check_mine, wait=first or last)
        if done:
            self._uploaded |= new
        return done

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Put the URL into errors about the copy."""
        try:
            yield
        except ActvecError as error:
            error.args = (str(error).replace(str(self.copy), self.url),)
            raise

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn errors of the store into `OSError`.

        A store that failed is not asked again: its package has repeated the call already.
        """
        if self._broken:
            raise OSError(self._broken)
        try:
            with naming_store(self.url):
                yield
        except OSError as error:
            self._broken = str(error)
            raise

    def _check_mine(self) -> None:
        holder = self._holder()
        if holder is None or holder.get("token") != self._owner["token"]:
            raise Aborted(
                f"{self.url} is no longer this process's: {_OWNER} there was removed or"
                " replaced; resume, if no other process does"
            )

    def _claim(self) -> None:
        holder = self._holder()
        if holder and all(holder.get(name) == self._owner[name] for name in ("host", "copy")):
            # Its process held the lock of the copy, so it has ended.
            self._store.change({_OWNER: None})
            holder = None
        if holder is None:
            record = self._owner | {"since": now()}
            if self._store.create(_OWNER, json.dumps(record).encode()):
                return
            holder = self._holder() or {}
        raise Aborted(
            f"another process is writing to {self.url}: pid {holder.get('pid')} on"
            f" {holder.get('host')}, since {holder.get('since')}. Wait for it; or if it has ended,"
            f" remove {self.url}/{_OWNER} and resume"
        )

    def _holder(self) -> dict[str, Any] | None:
        content = self._store.read(_OWNER)
        if content is None:
            return None
        try:
            record = json.loads(content)
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}

    def _release(self) -> None:
        with self._asking():
            if (self._holder() or {}).get("token") == self._owner["token"]:
                self._store.change({_OWNER: None})

    def _clear(self, *kept: str) -> None:
        for path in self.copy.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (".lock", *kept):
                path.unlink()
