"""What a job is: its source, its folder, and what it makes."""

import contextlib
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

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
        remote: The job's folder at the URL that was given; None for one on this machine.
    """

    source: DocumentSource
    folder: Path
    settings: VectorSettings
    layout: Layout
    ordered: bool
    resume: bool
    save_every: float
    remote: RemoteJob | None

    @classmethod
    def of(
        cls,
        source: DocumentSource,
        to: str | Path,
        settings: VectorSettings,
        layout: Layout,
        *,
        ordered: bool = False,
        resume: bool = False,
        save_every: float = 60.0,
    ) -> Self:
        """Return the options of a job with a folder or URL `to`.

        Raises:
            InvalidArgument: the URL is not of a known store, or the layout has a file per document.
            MissingExtra: the package for the URL is not installed.
        """
        if not is_remote(to):
            folder = given_path(to)
            return cls(source, folder, settings, layout, ordered, resume, save_every, None)
        remote = RemoteJob(str(to))
        if layout.format == "files":
            raise InvalidArgument(
                f"{remote.url} takes shards or parquet: files of one vector each would be two"
                " uploads per document",
                setting="format",
            )
        save_every = max(save_every, remote.save_every)
        return cls(source, remote.copy, settings, layout, ordered, resume, save_every, remote)

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
