"""The vectors of a corpus in a folder: a job that goes on wherever it was cut short."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from actvec.client.aio import AsyncClient
from actvec.client.bulk.layout import Layout
from actvec.client.bulk.ledger import JobOptions, Ledger
from actvec.client.bulk.progress import JobProgress
from actvec.client.documents import DocumentSource
from actvec.client.sync import Client
from actvec.client.vectors import Mode, Result, Settings, Truncation

OnProgress = Callable[[JobProgress], None]


class VectorJob:
    """Turns the documents of a source into vectors in a folder, each document once.

        job = VectorJob(open_documents("corpus.jsonl"), "vectors", mode="short", resume=True)
        with Client("127.0.0.1:50051") as client:
            progress = job.run(client)

    Documents that have no vector are in `errors.jsonl`, and `manifest.json` says what the job is.
    What is there when a job is cut short, by an error, `kill -9` or a loss of power, is whole; the
    same job resumed computes the rest.

    Attributes:
        folder: Where the vectors go.
        errors: The list of the documents that failed; there is no such file where none did.
    """

    def __init__(
        self,
        source: DocumentSource,
        folder: str | Path,
        *,
        mode: Mode,
        center: str | None = None,
        truncation: Truncation = "error",
        prepend_bos: bool | None = None,
        layout: Layout | None = None,
        ordered: bool = False,
        resume: bool = False,
        save_every: float = 60.0,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            source: The documents, as `open_documents` gives them.
            folder: Where the vectors go; created where it is missing.
            mode: `short` (`[D]` numbers) or `long` (`[4 * D]`).
            center: The corpus mean to subtract: an id, a name or `latest`, which is looked up when
                the job is begun, not when it is resumed; None for raw vectors.
            truncation: What happens to a text over the model's context: it is an `error`, or its
                `start` or its `end` is kept.
            prepend_bos: Whether the tokenizer's BOS token comes first; by default if it has one, as
                the stamp says.
            layout: Which files. Default: `Layout()`, a file a document.
            ordered: Whether vectors are written in the order of the documents.
            resume: Whether to go on with the job that is in the folder. Where there is none, it is
                begun in any case.
            save_every: Seconds after which a file that is not full is written all the same, so that
                a kill costs no more.

        Raises:
            ValueError: an argument that does not exist.
        """
        self._options = JobOptions(
            source=source,
            folder=Path(folder),
            settings=Settings(mode, center, truncation, prepend_bos),
            layout=layout or Layout(),
            ordered=ordered,
            resume=resume,
            save_every=save_every,
        )
        self.folder = self._options.folder
        self.errors = self._options.errors

    def run(
        self,
        client: Client,
        *,
        window: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> JobProgress:
        """Compute what is not there.

        Args:
            client: Of the server.
            window: Documents in flight at a time. Default: see `AsyncClient.stream`.
            on_progress: Is told after each document, and when the job is finished.

        Returns:
            What is in the folder now.

        Raises:
            FailedPrecondition: the folder holds another job, or this one and it is not to be
                resumed, or the server makes other vectors than when the job was begun.
            Aborted: another process is at the job.
            DataLoss: a file of the job is damaged or missing.
            ActvecError: the server refused, or none answers; what came is kept.
            OSError: the disk is full, or the like.
        """
        tell = on_progress or _ignore
        ledger = Ledger(self._options)
        try:
            ledger.open()
            if not ledger.finished:
                settings = ledger.settings
                for result in client.stream(
                    ledger.documents(),
                    mode=settings.mode,
                    center=settings.center,
                    truncation=settings.truncation,
                    prepend_bos=settings.prepend_bos,
                    window=window,
                    ordered=self._options.ordered,
                ):
                    ledger.keep(result)
                    tell(ledger.progress)
                ledger.finish()
                tell(ledger.progress)
        finally:
            ledger.close()
        return ledger.progress

    async def run_async(
        self,
        client: AsyncClient,
        *,
        window: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> JobProgress:
        """As `run`, in an event loop; `on_progress` may hear of several documents at once."""
        tell = on_progress or _ignore
        # One thread for all that touches the disk, so that what is cancelled comes to its end
        # before the folder is closed.
        with ThreadPoolExecutor(1, "actvec-job") as thread:
            on_disk = functools.partial(asyncio.get_running_loop().run_in_executor, thread)
            ledger = Ledger(self._options)
            try:
                await on_disk(ledger.open)
                if not ledger.finished:
                    settings = ledger.settings
                    async with client.stream(
                        ledger.documents(),
                        mode=settings.mode,
                        center=settings.center,
                        truncation=settings.truncation,
                        prepend_bos=settings.prepend_bos,
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
        return ledger.progress


def _keep_all(ledger: Ledger, results: list[Result]) -> None:
    for result in results:
        ledger.keep(result)


def _ignore(_: JobProgress) -> None:
    pass
