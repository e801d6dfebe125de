"""What a job is: its source, its folder, and what it makes."""

import contextlib
import secrets
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path

from actvec.client.bulk.layout import Layout
from actvec.client.bulk.manifest import Manifest, now
from actvec.client.bulk.remote import RemoteJob, is_remote
from actvec.client.documents import DocumentSource
from actvec.client.errors import InvalidArgument
from actvec.client.files import given_path
from actvec.client.records.settings import VectorSettings


@dataclass(frozen=True)
class JobOptions:
    """The options of a job; see `VectorJob`.

    Attributes:
        folder: The folder of the vectors, or the local copy of the folder at `remote`.
        save_every: Seconds between two saves; at least the minimum of the store at `remote`.
        remote: The job's folder at the URL that was given.

    Raises:
        InvalidArgument: the URL is not of a known store, or the layout has a file per document.
        MissingExtra: the package for the URL is not installed.
    """

    source: DocumentSource
    to: InitVar[str | Path]
    settings: VectorSettings
    layout: Layout
    ordered: bool = False
    resume: bool = False
    save_every: float = 60.0
    folder: Path = field(init=False)
    remote: RemoteJob | None = field(init=False)

    def __post_init__(self, to: str | Path) -> None:
        remote = RemoteJob(str(to)) if is_remote(to) else None
        if remote and self.layout.format == "files":
            raise InvalidArgument(
                f"{remote.url} takes shards or parquet: files of one vector each would be two"
                " uploads per document",
                setting="format",
            )
        # A frozen dataclass can set its attributes only like this.
        object.__setattr__(self, "remote", remote)
        object.__setattr__(self, "folder", remote.copy if remote else given_path(to))
        if remote:
            object.__setattr__(self, "save_every", max(self.save_every, remote.save_every))

    @property
    def place(self) -> str:
        """The folder or URL of the vectors."""
        return self.remote.url if self.remote else str(self.folder)

    def naming(self) -> contextlib.AbstractContextManager[None]:
        """Put the URL of a remote folder into errors about its copy."""
        return self.remote.naming() if self.remote else contextlib.nullcontext()

    @property
    def errors(self) -> Path:
        """The list of failed documents."""
        return self.folder / "errors.jsonl"

    @property
    def checksums(self) -> Path:
        """The checksums of files of many vectors."""
        return self.folder / "checksums.jsonl"

    def manifest(self) -> Manifest:
        """Describe this job at its start.

        Raises:
            OSError: the source cannot be read.
        """
        identity = self.source.identity()
        settings = self.settings.to_dict() | asdict(self.layout) | {"ordered": self.ordered}
        return Manifest(
            run=secrets.token_hex(16),
            created_at=now(),
            settings=settings,
            input=identity and {"path": str(self.source.path)} | identity,
        )
