"""The contract's methods about corpus means."""

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial

from actvec.server.budget import purse
from actvec.server.config import Limits
from actvec.server.errors import MessageTooLargeError, RequestError
from actvec.server.extraction.extractor import Extractor
from actvec.server.extraction.recipe import Recipe
from actvec.server.extraction.settings import Settings
from actvec.server.extraction.turns import Turns
from actvec.server.jobs.registry import Jobs
from actvec.server.means.centering import Centerings
from actvec.server.means.naming import LATEST, checked_name
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.server.means.transfers import (
    PIECE_BYTES,
    Arriving,
    Uploads,
    arriving,
    check_file,
    read_piece,
)
from actvec.server.model.stamp import ModelStamp
from actvec.server.rpc.idle import until_idle
from actvec.server.service.mean_messages import mean_message
from actvec.server.service.requests import naming
from actvec.v1 import means_pb2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_MERGED = 1000
_PAGE = 100
_LARGEST_PAGE = 1000


class MeanMethods:
    """Lists, returns, stores, merges and deletes means. Touches the disk off the event loop.

    Callers take turns at reading, checking and merging whole files.
    """

    def __init__(self, extractor: Extractor, store: MeanStore, jobs: Jobs) -> None:
        self._extractor = extractor
        self._store = store
        self._jobs = jobs
        self._limits: Limits = extractor.limits
        self._card = extractor.card
        self._model = extractor.card.stamp
        self._centerings = Centerings(store, self._model, self._card.d_model)
        # Uploads and merges hold one whole mean in memory at a time, and centering one more.
        self._turns = Turns("actvec-means", aside=True)
        self._centering = Turns("actvec-centering")
        self._uploads = Uploads()

    async def recipe(self, settings: Settings) -> Recipe:
        """Combine settings with the mean that they name.

        Raises:
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it does not fit this model or these settings.
            MeanCorruptError: its file was altered.
        """
        if not settings.corpus_mean:
            return Recipe(settings, None)
        find = partial(
            self._centerings,
            settings.corpus_mean,
            settings.target,
            prepend_bos=settings.prepend_bos,
        )
        centering = await self._centering.run(find, purse().caller)
        return Recipe(settings, centering)

    async def ListCorpusMeans(
        self, request: means_pb2.ListCorpusMeansRequest
    ) -> means_pb2.ListCorpusMeansResponse:
        """Return a page of records, newest first."""
        records = await asyncio.to_thread(self._store.records)
        if not request.all_models:
            records = [
                record for record in records if record.model is None or self._offers(record.model)
            ]
        start = _page_start(request.page_token)
        end = start + min(request.page_size or _PAGE, _LARGEST_PAGE)
        more = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(records) else ""
        return means_pb2.ListCorpusMeansResponse(
            corpus_means=map(mean_message, records[start:end]), next_page_token=more
        )

    async def GetCorpusMean(
        self, request: means_pb2.GetCorpusMeanRequest
    ) -> means_pb2.GetCorpusMeanResponse:
        """Return one record."""
        record = await self._found(request.corpus_mean)
        return means_pb2.GetCorpusMeanResponse(corpus_mean=mean_message(record))

    async def DeleteCorpusMean(
        self, request: means_pb2.DeleteCorpusMeanRequest
    ) -> means_pb2.DeleteCorpusMeanResponse:
        """Delete a mean, and forget the job that made it."""
        if request.corpus_mean == LATEST:
            raise RequestError(
                "corpus_mean", "is latest; give the name or id of the mean to delete"
            )
        record = await self._found(request.corpus_mean)
        await asyncio.to_thread(self._store.delete, record)
        await asyncio.to_thread(self._jobs.forget, record.id)
        return means_pb2.DeleteCorpusMeanResponse(corpus_mean=mean_message(record))

    async def MergeCorpusMeans(
        self, request: means_pb2.MergeCorpusMeansRequest
    ) -> means_pb2.MergeCorpusMeansResponse:
        """Merge means into a new one."""
        with naming("name"):
            name = checked_name(request.name)
        means = list(request.corpus_means)
        # Before any look-up: a message has room for millions of names.
        if len(means) > _MOST_MERGED:
            raise RequestError(
                "corpus_means", f"are {len(means)}; merge at most {_MOST_MERGED} at a time"
            )
        _check_apart(means)
        records = await asyncio.to_thread(self._all_found, means)
        _check_apart([record.id for record in records])
        merge = partial(self._store.merge, records, name)
        record = await self._turns.run(merge, purse().caller)
        return means_pb2.MergeCorpusMeansResponse(corpus_mean=mean_message(record))

    async def DownloadCorpusMean(
        self, request: means_pb2.DownloadCorpusMeanRequest
    ) -> AsyncGenerator[means_pb2.DownloadCorpusMeanResponse, None]:
        """Yield the record, then the file, piece by piece."""
        record = await self._found(request.corpus_mean)
        path = self._store.path(record)
        # Once as a piece, and once in its message.
        with purse().holding(2 * PIECE_BYTES):
            await self._turns.run(partial(check_file, path, record), purse().caller)
            yield means_pb2.DownloadCorpusMeanResponse(corpus_mean=mean_message(record))
            for start in range(0, record.size_bytes, PIECE_BYTES):
                piece = await asyncio.to_thread(read_piece, path, record, start)
                yield means_pb2.DownloadCorpusMeanResponse(chunk=piece)

    async def UploadCorpusMean(
        self, requests: AsyncIterator[means_pb2.UploadCorpusMeanRequest]
    ) -> means_pb2.UploadCorpusMeanResponse:
        """Store a file whose size and hash match its announcement."""
        requests = until_idle(requests, self._limits.idle_seconds)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "upload":
            raise RequestError("upload", "the first message must hold name, size and hash")
        name, size, sha256 = self._announced(first.upload)
        del first
        caller = purse().caller
        with self._uploads.announced(caller, size) as upload:
            needed = self._uploads.needed(caller)
            room = await asyncio.to_thread(self._store.check_room, sha256, needed)
            with arriving(self._store.directory, name, size, sha256) as file, naming("chunk"):
                async for request in requests:
                    upload.take(len(request.chunk), room)
                    await asyncio.to_thread(file.write, request.chunk)
                    # Not kept alive while waiting for the next one.
                    del request
                file.check()
                record = await self._turns.run(partial(self._take, file, name), caller)
        return means_pb2.UploadCorpusMeanResponse(corpus_mean=mean_message(record))

    def close(self) -> None:
        """Start no more work on files."""
        self._turns.close()
        self._centering.close()

    async def _found(self, name: str) -> MeanRecord:
        if not name:
            raise RequestError("corpus_mean", "is empty; give an id, a name, or latest")
        return await asyncio.to_thread(self._store.find, name, self._model)

    def _offers(self, model: ModelStamp) -> bool:
        """Whether this server offers vectors of the states behind a mean."""
        return (
            model.same_model(self._model)
            and model.hook in self._card.hooks
            and all(layer in self._card.layers_on_offer for layer in model.layers)
        )

    def _take(self, file: Arriving, name: str) -> MeanRecord:
        return self._store.upload(name, file.content(), self._card.d_model)

    def _announced(self, upload: means_pb2.CorpusMeanUpload) -> tuple[str, int, str]:
        """Check the name, size and hash of an upload."""
        sha256 = upload.sha256.lower()
        if not _SHA256.fullmatch(sha256):
            raise RequestError("upload.sha256", "is not 64 hexadecimal digits")
        with naming("upload.name"):
            name = checked_name(upload.name)
        if upload.size_bytes > self._limits.upload_bytes:
            raise MessageTooLargeError(
                "upload.size_bytes",
                f"is {upload.size_bytes}; the limit is {self._limits.upload_bytes} bytes",
            )
        return name, upload.size_bytes, sha256

    def _all_found(self, means: Sequence[str]) -> list[MeanRecord]:
        """Return the records of many means, with one look at the store."""
        records = self._store.records()
        by_id = {record.id: record for record in records}
        # The newest of a name wins: it comes first in `records`.
        by_name = {record.name: record for record in reversed(records)}
        return [
            by_id.get(mean) or by_name.get(mean) or self._store.find(mean, self._model)
            for mean in means
        ]


def _check_apart(means: Sequence[str]) -> None:
    """Check that there are means to merge, and that none counts twice."""
    if len(set(means)) < max(len(means), 2):
        raise RequestError("corpus_means", "needs two or more different means")


def _page_start(token: str) -> int:
    try:
        start = int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError:
        start = -1
    if start < 0:
        raise RequestError("page_token", "is not a token from an earlier answer")
    return start
