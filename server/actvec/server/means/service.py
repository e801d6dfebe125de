"""The methods of the contract that are about corpus means."""

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial

from actvec.server.calls.budget import purse
from actvec.server.config import Limits
from actvec.server.errors import RequestError, TextTooLargeError
from actvec.server.extractor import Extractor
from actvec.server.means.centring import Centrings
from actvec.server.means.jobs import Jobs
from actvec.server.means.merging import same_states
from actvec.server.means.store import LATEST, MeanStore, checked_name
from actvec.server.means.transfers import (
    PIECE_BYTES,
    Arriving,
    arriving,
    check_file,
    read_piece,
)
from actvec.server.recipe import Recipe
from actvec.server.turns import Turns
from actvec.server.wire import Settings, model_stamp
from actvec.v1 import means_pb2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_MERGED = 1000
_PAGE = 100
_LARGEST_PAGE = 1000


class MeanService:
    """Lists, gives, takes, merges and removes means. The disk is touched off the event loop.

    Callers take turns at what reads, checks or merges whole files.
    """

    def __init__(self, store: MeanStore, jobs: Jobs, extractor: Extractor) -> None:
        self._store = store
        self._jobs = jobs
        self._limits: Limits = extractor.limits
        self._model = model_stamp(extractor.card)
        self._d_model = extractor.card.d_model
        self._centrings = Centrings(store, self._model, self._d_model)
        # One whole mean in memory at a time over all uploads and merges, and one to center by.
        self._turns = Turns("actvec-means", aside=True)
        self._centring = Turns("actvec-centring")
        self._arriving_bytes = 0

    async def recipe(self, settings: Settings) -> Recipe:
        """Settings with the mean that they name.

        Raises:
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it does not fit this model or these settings.
            MeanCorruptError: its file was altered.
        """
        if not settings.corpus_mean:
            return Recipe(settings, None)
        find = partial(self._centrings, settings.corpus_mean, prepend_bos=settings.prepend_bos)
        centring = await self._centring.run(find, purse().caller)
        return Recipe(settings, centring)

    async def list_means(
        self, request: means_pb2.ListCorpusMeansRequest
    ) -> means_pb2.ListCorpusMeansResponse:
        """A page of records, newest first."""
        records = await asyncio.to_thread(self._store.records)
        if not request.all_models:
            records = [
                record
                for record in records
                if not record.HasField("model") or same_states(record.model, self._model)
            ]
        start = _page_start(request.page_token)
        end = start + min(request.page_size or _PAGE, _LARGEST_PAGE)
        more = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(records) else ""
        return means_pb2.ListCorpusMeansResponse(
            corpus_means=records[start:end], next_page_token=more
        )

    async def get(self, name: str) -> means_pb2.CorpusMean:
        """One record."""
        if not name:
            raise RequestError("corpus_mean", "is empty; give an id, a name, or latest")
        return await asyncio.to_thread(self._store.find, name, self._model)

    async def delete(self, name: str) -> means_pb2.CorpusMean:
        """Remove a mean, and forget the job that made it."""
        if name == LATEST:
            raise RequestError("corpus_mean", "is latest; name the mean that is to be deleted")
        record = await self.get(name)
        await asyncio.to_thread(self._store.delete, record)
        await asyncio.to_thread(self._jobs.forget, record.id)
        return record

    async def merge(self, request: means_pb2.MergeCorpusMeansRequest) -> means_pb2.CorpusMean:
        """Merge means into a new one."""
        name = checked_name("name", request.name)
        means = list(request.corpus_means)
        # Before anything is looked up: a message has room for millions of names.
        if len(means) > _MOST_MERGED:
            raise RequestError(
                "corpus_means", f"are {len(means)}; merge at most {_MOST_MERGED} at a time"
            )
        _check_apart(means)
        records = await asyncio.to_thread(self._found, means)
        _check_apart([record.id for record in records])
        return await self._turns.run(partial(self._store.merge, records, name), purse().caller)

    async def download(
        self, name: str
    ) -> AsyncGenerator[means_pb2.DownloadCorpusMeanResponse, None]:
        """The record, then the file, a piece at a time."""
        record = await self.get(name)
        path = self._store.path(record)
        # As a piece, and as its message.
        with purse().holding(2 * PIECE_BYTES):
            await self._turns.run(partial(check_file, path, record), purse().caller)
            yield means_pb2.DownloadCorpusMeanResponse(corpus_mean=record)
            for start in range(0, record.size_bytes, PIECE_BYTES):
                piece = await asyncio.to_thread(read_piece, path, record, start)
                yield means_pb2.DownloadCorpusMeanResponse(chunk=piece)

    async def upload(
        self, requests: AsyncIterator[means_pb2.UploadCorpusMeanRequest]
    ) -> means_pb2.CorpusMean:
        """Store a file whose size and hash are as announced."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "upload":
            raise RequestError("upload", "the first message must hold name, size and hash")
        name, size, sha256 = self._announced(first.upload)
        del first
        # What is on its way needs room, too.
        self._arriving_bytes += size
        try:
            await asyncio.to_thread(self._store.check_room, sha256, self._arriving_bytes)
            with arriving(self._store.directory, name, size, sha256) as file:
                async for request in requests:
                    await asyncio.to_thread(file.write, request.chunk)
                    # Not kept alive while the next one is awaited.
                    del request
                file.check()
                return await self._turns.run(partial(self._take, file, name), purse().caller)
        finally:
            self._arriving_bytes -= size

    def close(self) -> None:
        """Begin nothing new with files."""
        self._turns.close()
        self._centring.close()

    def _take(self, file: Arriving, name: str) -> means_pb2.CorpusMean:
        return self._store.upload(name, file.content(), self._d_model)

    def _announced(self, upload: means_pb2.CorpusMeanUpload) -> tuple[str, int, str]:
        """Name, size and hash of an upload, checked."""
        sha256 = upload.sha256.lower()
        if not _SHA256.fullmatch(sha256):
            raise RequestError("upload.sha256", "is not 64 hexadecimal digits")
        name = checked_name("upload.name", upload.name)
        if upload.size_bytes > self._limits.upload_bytes:
            raise TextTooLargeError(
                "upload.size_bytes",
                f"is {upload.size_bytes}; at most {self._limits.upload_bytes} bytes are taken",
            )
        return name, upload.size_bytes, sha256

    def _found(self, means: Sequence[str]) -> list[means_pb2.CorpusMean]:
        """The records of many means, of which one look at the store finds all."""
        records = self._store.records()
        by_id = {record.id: record for record in records}
        # Of one name the newest, which comes first.
        by_name = {record.name: record for record in reversed(records)}
        return [
            by_id.get(mean) or by_name.get(mean) or self._store.find(mean, self._model)
            for mean in means
        ]


def _check_apart(means: Sequence[str]) -> None:
    """See that there are means to merge, and no mean counts twice."""
    if len(set(means)) < max(len(means), 2):
        raise RequestError("corpus_means", "needs two or more means, each once")


def _page_start(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError:
        raise RequestError("page_token", "is not one that an answer gave") from None
