"""The vectors of a corpus in a folder: a job that resumes wherever it was interrupted."""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Unpack

from actvec.client.api.async_client import AsyncClient
from actvec.client.api.client import Client
from actvec.client.bulk.layout import Layout
from actvec.client.bulk.ledger import Ledger
from actvec.client.bulk.manifest import Manifest
from actvec.client.bulk.options import JobOptions
from actvec.client.bulk.progress import JobProgress
from actvec.client.documents import DocumentSource
from actvec.client.records.settings import VectorKeywords, VectorSettings
from actvec.client.records.vectors import Result

OnProgress = Callable[[JobProgress], None]


class VectorJob:
    """Turns the documents of a source into vectors in a folder, each document once.

        corpus = open_documents("corpus.jsonl")
        job = VectorJob(corpus, "vectors", mode="short", resume=True)
        with Client("127.0.0.1:50051") as client:
            progress = job.run(client)

    `errors.jsonl` lists the documents without a vector, and `manifest.json` describes the job. If
    an error, `kill -9` or a loss of power interrupts a job, every file in its folder is whole;
    resume the same job to compute the rest.

    Attributes:
        place: The folder or URL of the vectors.
        folder: The folder of the vectors; for a URL, the local copy, which keeps only the manifest
            and the errors after the job.
        errors: The list of failed documents; the file does not exist if none failed.
    """

    def __init__(
        self,
        source: DocumentSource,
        folder: str | Path,
        settings: VectorSettings | None = None,
        *,
        layout: Layout | None = None,
        ordered: bool = False,
        resume: bool = False,
        save_every: float = 60.0,
        **keywords: Unpack[VectorKeywords],
    ) -> None:
        """Configure the job, without reading or writing anything.

        Args:
            source: The documents, from `open_documents`.
            folder: The folder for the vectors; created if it is missing. A leading `~` is the home
                directory, as in every path of this library. Or, for shards and Parquet, a URL:
                `s3://bucket/vectors`, `gs://bucket/vectors` or `hf://datasets/owner/name/vectors`.
            settings: How to turn documents into vectors. You may pass its attributes by name
                instead, for example `mode="long"`; see `VectorSettings`. The job looks up the mean
                `latest` when it starts, not when it resumes.
            layout: The files to write. Default: `Layout()`, one file per document.
            ordered: Whether to write vectors in the order of the documents.
            resume: Whether to resume the job in the folder; if there is none, the job starts.
            save_every: Seconds after which to write a file even if it is not full, so that a kill
                costs no more; on the hub, at least 600.
            **keywords: The attributes of `VectorSettings`, instead of `settings`.

        Raises:
            ValueError: see `VectorSettings`.
            TypeError: a setting is unknown.
            InvalidArgument: the URL is not of a known store, or the layout has a file per document.
            MissingExtra: the package for the URL is not installed.
        """
        settings = VectorSettings.of(settings, keywords)
        if settings.encoding != "float32":
            raise ValueError(
                f"the vectors of a job travel as float32, not as {settings.encoding}; its layout"
                " says how files store them"
            )
        self._options = JobOptions.of(
            source,
            folder,
            settings,
            layout or Layout(),
            ordered=ordered,
            resume=resume,
            save_every=save_every,
        )
        self.folder = self._options.folder
        self.place = self._options.place
        self.errors = self._options.errors
        self._ledger = Ledger(self._options)

    @property
    def progress(self) -> JobProgress:
        """The progress of the last run; after an error, its `durable` vectors are safe."""
        return self._ledger.progress

    @property
    def center(self) -> str | None:
        """The id of the mean that the vectors in the folder are centered by.

        None if they are raw, or there are none yet.

        Raises:
            ActvecError: the folder's manifest is damaged, or of a later version.
            OSError: it cannot be read.
        """
        manifest = Manifest.load(self.folder)
        stamp = (manifest and manifest.stamp) or {}
        return stamp.get("corpus_mean_id") or None

    def run(
        self,
        client: Client,
        *,
        window: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> JobProgress:
        """Compute the missing vectors.

        Args:
            client: The client of a server.
            window: Documents in flight at a time. Default: see `AsyncClient.stream`.
            on_progress: Called after each document, and when the job finishes.

        Returns:
            The state of the folder.

        Raises:
            FailedPrecondition: the folder holds another job, or this one without `resume`, or the
                server computes other vectors than when the job started.
            InvalidArgument: a column to keep has a name that the layout uses.
            Aborted: another process runs the job.
            DataLoss: a file of the job is damaged or missing; the message names it and says what to
                do. A resumed job checks every file against its size and SHA-256.
            ActvecError: the server refused, or none answers; received vectors are kept.
            OSError: the disk is full, or similar; `filename` names the file. Or a store cannot be
                reached or written to.
        """
        tell = on_progress or _ignore
        self._ledger = ledger = Ledger(self._options)
        with self._options.naming(), contextlib.closing(ledger):
            ledger.open()
            if not ledger.finished:
                for result in client.stream(
                    ledger.documents(),
                    ledger.settings,
                    window=window,
                    ordered=self._options.ordered,
                ):
                    ledger.keep(result)
                    tell(ledger.progress)
                ledger.finish()
                tell(ledger.progress)
        return self.progress

    async def run_async(
        self,
        client: AsyncClient,
        *,
        window: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> JobProgress:
        """As `run`, in an event loop; `on_progress` may cover several documents per call."""
        tell = on_progress or _ignore
        # A single thread touches the disk, so that a cancelled call ends before the folder is
        # closed.
        with self._options.naming(), ThreadPoolExecutor(1, "actvec-job") as thread:
            on_disk = functools.partial(asyncio.get_running_loop().run_in_executor, thread)
            self._ledger = ledger = Ledger(self._options)
            try:
                await on_disk(ledger.open)
                if not ledger.finished:
                    async with client.stream(
                        ledger.documents(),
                        ledger.settings,
                        window=window,
                        ordered=self._options.ordered,
                    ) as results:
                        while batch := await results.next_batch():
                            await on_disk(_keep_all, ledger, batch)
                            tell(ledger.progress)
                    await on_disk(ledger.finish)
                    tell(ledger.progress)
            finally:
                await on_disk(ledger.close)
        return self.progress


def _keep_all(ledger: Ledger, results: list[Result]) -> None:
    for result in results:
        ledger.keep(result)


def _ignore(_: JobProgress) -> None:
    pass
