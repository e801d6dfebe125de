"""Dataset repositories of the Hugging Face hub, where each change is a commit."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from actvec.client.bulk.remote.store import StoreBusyError
from actvec.client.errors import (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
)
from actvec.client.extras import import_extra

_FORM = "hf://datasets/OWNER/NAME/PATH, or hf://datasets/OWNER/NAME@BRANCH/PATH"

# If the hub refuses a commit without saying when to try again.
_BUSY_SECONDS = 60.0

# The statuses of a commit whose parent is no longer the last commit.
_OVERTAKEN = (409, 412)


class HubStore:
    """A `Store` in a dataset repository: a change is one commit, on top of the one last read.

    The repository is created, private, with the first change if there is none.

    Attributes:
        url: See `Store`.
        atomic: See `Store`.
        save_every: See `Store`. The hub counts commits, and refuses many of them in an hour.
    """

    atomic = True
    save_every = 600.0

    def __init__(self, url: str, setting: str = "out") -> None:
        """Parse a URL, which an argument gave, without reading or writing anything.

        Raises:
            InvalidArgument: it is not of a dataset.
            MissingExtra: huggingface_hub is not installed.
        """
        self.url = url
        self._setting = setting
        self._hub = import_extra("huggingface_hub", "data")
        try:
            place = self._hub.parse_hf_uri(url)
        except ValueError as error:
            raise InvalidArgument(
                f"cannot use {url}: give {_FORM}: {error}", setting=setting
            ) from error
        if place.type != "dataset":
            raise InvalidArgument(f"cannot use {url}: give {_FORM}", setting=setting)
        self._api = self._hub.HfApi()
        self._repository = {"repo_id": place.id, "repo_type": "dataset"}
        self._branch = place.revision or "main"
        self._root = place.path_in_repo.strip("/")
        # The commit that was last read; None if there is no repository.
        self._head: str | None = None
        # The files of `create` that no commit has yet.
        self._created: dict[str, bytes] = {}

    def look(self) -> None:
        """See `Store.look`.

        Raises:
            FailedPrecondition: the repository has no such branch.
        """
        with self._explained():
            try:
                found = self._api.repo_info(**self._repository, revision=self._branch)
            except self._hub.errors.RevisionNotFoundError:
                raise FailedPrecondition(
                    f"{self.url}: the dataset has no branch {self._branch!r}; create it, or name"
                    " another one",
                    setting=self._setting,
                ) from None
            except self._hub.errors.RepositoryNotFoundError:
                # The hub does not tell a repository that is missing from one of others.
                self._head = None
            else:
                self._head = found.sha

    def find(self) -> set[str]:
        """See `Store.find`."""
        self.look()
        return self._names()

    def read(self, name: str) -> bytes | None:
        """See `Store.read`."""
        self.look()
        if self._head is None:
            return self._created.get(name)
        with TemporaryDirectory(prefix="actvec-") as folder:
            path = Path(folder, "file")
            try:
                self.get(name, path)
            except self._hub.errors.EntryNotFoundError:
                return self._created.get(name)
            return path.read_bytes()

    def get(self, name: str, path: Path) -> None:
        """See `Store.get`."""
        with self._explained(), TemporaryDirectory(prefix="actvec-", dir=path.parent) as folder:
            found = self._api.hf_hub_download(
                **self._repository,
                filename=self._path(name),
                revision=self._head,
                local_dir=folder,
            )
            Path(found).replace(path)

    def create(self, name: str, content: bytes) -> bool:
        """See `Store.create`; the file is part of the next commit, and no commit of its own."""
        if self.read(name) is not None:
            return False
        self._created[name] = content
        return True

    def change(self, files: Mapping[str, Path | None]) -> bool:
        """See `Store.change`."""
        adding = self._created | {name: path for name, path in files.items() if path is not None}
        gone = {name for name, path in files.items() if path is None}
        there = self._names() if gone else set()
        operations = [
            self._hub.CommitOperationAdd(self._path(name), content)
            for name, content in adding.items()
            if name not in gone
        ]
        operations += [
            self._hub.CommitOperationDelete(self._path(name)) for name in sorted(gone & there)
        ]
        if operations and not self._commit(operations):
            return False
        self._created = {}
        return True

    def _commit(self, operations: Sequence[Any]) -> bool:
        """Commit on top of the last commit that was read; False if there are others on top of it.

        Raises:
            OSError: a file is not in the commit.
        """
        paths = [operation.path_in_repo for operation in operations]
        with self._explained():
            if self._head is None:
                self._api.create_repo(**self._repository, private=True, exist_ok=True)
                self.look()
            try:
                made = self._api.create_commit(
                    **self._repository,
                    operations=operations,
                    revision=self._branch,
                    parent_commit=self._head,
                    commit_message=f"actvec writes {len(paths)} files",
                    commit_description="\n".join(paths),
                )
            except self._hub.errors.HfHubHTTPError as error:
                if error.response.status_code in _OVERTAKEN:
                    return False
                raise
        self._head = made.oid
        # The hub skips files that .gitignore names, without an error.
        there = self._names()
        for operation in operations:
            name = operation.path_in_repo.removeprefix(self._path(""))
            if isinstance(operation, self._hub.CommitOperationAdd) and name not in there:
                raise OSError(f"{name} is missing in its commit; see .gitignore in the repository")
        return True

    def _names(self) -> set[str]:
        """The names of the files in the folder, as of the last commit that was read."""
        if self._head is None:
            return set()
        with self._explained():
            try:
                listed = list(
                    self._api.list_repo_tree(
                        **self._repository,
                        path_in_repo=self._root or None,
                        recursive=True,
                        revision=self._head,
                    )
                )
            except self._hub.errors.EntryNotFoundError:
                return set()
        return {
            one.path.removeprefix(self._path(""))
            for one in listed
            if isinstance(one, self._hub.hf_api.RepoFile)
        }

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn refusals of the hub into one line each, and show none of its progress bars.

        Raises:
            Unauthenticated: this machine has no token.
            PermissionDenied: its token may not write there.
            StoreBusyError: the hub refuses more requests for now.
        """
        bars = not self._hub.utils.are_progress_bars_disabled()
        self._hub.utils.disable_progress_bars()
        try:
            yield
        except self._hub.errors.HfHubHTTPError as error:
            self._refuse(error)
        finally:
            if bars:
                self._hub.utils.enable_progress_bars()

    def _refuse(self, error: Any) -> NoReturn:
        status = error.response.status_code
        if status == 429:
            seconds = error.response.headers.get("Retry-After", "")
            wait = float(seconds) if seconds.isdecimal() else _BUSY_SECONDS
            raise StoreBusyError(
                f"{self.url}: the hub refuses more commits for {math.ceil(wait)} s", wait
            ) from error
        if status == 404 and not isinstance(error, self._hub.errors.RepositoryNotFoundError):
            raise error
        if status in (401, 403, 404) and self._hub.get_token() is None:
            raise Unauthenticated(
                f"{self.url} needs a token that may write: set HF_TOKEN, or run `hf auth login`"
            ) from error
        if status in (401, 403, 404):
            raise PermissionDenied(
                f"{self.url}: the token of this machine may not read or write there; give one that"
                f" may write to {self._repository['repo_id']} in HF_TOKEN"
            ) from error
        raise error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name
