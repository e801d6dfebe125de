"""The methods of the contract that are about corpus means."""

import asyncio
import base64
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator

from actvec.server.config import Limits
from actvec.server.errors import RequestError, TextTooLargeError
from actvec.server.extractor import Extractor
from actvec.server.means.centring import Centrings
from actvec.server.means.jobs import Jobs
from actvec.server.means.merging import same_states
from actvec.server.means.store import LATEST, MeanStore, checked_name
from actvec.server.means.whole import storing
from actvec.server.recipe import Recipe
from actvec.server.wire import Settings, model_stamp
from actvec.v1 import means_pb2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20
_PAGE = 100
_LARGEST_PAGE = 1000


class MeanService:
    """Lists, gives, takes, merges and removes means. The disk is touched off the event loop."""

    def __init__(self, store: MeanStore, jobs: Jobs, extractor: Extractor) -> None:
        self._store = store
        self._jobs = jobs
        self._limits: Limits = extractor.limits
        self._model = model_stamp(extractor.card)
        self._d_model = extractor.card.d_model
        self._centrings = Centrings(store, self._model, self._d_model)

    async def recipe(self, settings: Settings) -> Recipe:
        """Settings with the mean that they name.

        Raises:
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it does not fit this model or these settings.
            MeanCorruptError: its file was altered.
        """
        if not settings.corpus_mean:
            return Recipe(settings, None)
        centring = await asyncio.to_thread(
            self._centrings, settings.corpus_mean, prepend_bos=settings.prepend_bos
        )
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
        records = [await self.get(mean) for mean in request.corpus_means]
        if len({record.id for record in records}) < max(len(records), 2):
            raise RequestError("corpus_means", "needs two or more means, each once")
        return await asyncio.to_thread(self._store.merge, records, name)

    async def download(self, name: str) -> AsyncIterator[means_pb2.DownloadCorpusMeanResponse]:
        """The record, then the file."""
        record = await self.get(name)
        content = await asyncio.to_thread(self._store.content, record)
        yield means_pb2.DownloadCorpusMeanResponse(corpus_mean=record)
        for start in range(0, len(content), _CHUNK_BYTES):
            yield means_pb2.DownloadCorpusMeanResponse(chunk=content[start : start + _CHUNK_BYTES])

    async def upload(
        self, requests: AsyncIterator[means_pb2.UploadCorpusMeanRequest]
    ) -> means_pb2.CorpusMean:
        """Store a file whose size and hash are as announced."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "upload":
            raise RequestError("upload", "the first message must hold name, size and hash")
        upload = first.upload
        sha256 = upload.sha256.lower()
        if not _SHA256.fullmatch(sha256):
            raise RequestError("upload.sha256", "is not 64 hexadecimal digits")
        name = checked_name("upload.name", upload.name)
        if upload.size_bytes > self._limits.upload_bytes:
            raise TextTooLargeError(
                "upload.size_bytes",
                f"is {upload.size_bytes}; at most {self._limits.upload_bytes} bytes are taken",
            )
        await asyncio.to_thread(self._store.check_room, sha256, upload.size_bytes)
        with storing(f"mean {name}"), tempfile.TemporaryFile() as file:
            async for request in requests:
                if file.tell() + len(request.chunk) > upload.size_bytes:
                    raise RequestError("chunk", f"goes beyond the {upload.size_bytes} bytes")
                await asyncio.to_thread(file.write, request.chunk)
            file.seek(0, os.SEEK_SET)
            content = await asyncio.to_thread(file.read)
        if len(content) != upload.size_bytes:
            raise RequestError(
                "chunk", f"ended after {len(content)} of {upload.size_bytes} bytes; send it again"
            )
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RequestError("upload.sha256", "is not that of the bytes; send the file again")
        return await asyncio.to_thread(self._store.upload, name, content, self._d_model)


def _page_start(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError:
        raise RequestError("page_token", "is not one that an answer gave") from None
