"""A corpus over many workers: each computes a shard, and what they made is put together.

A worker serves its model to the program `actvec` in its own container, so that a shard is what any
job is: packed, counted exactly once, and gone on with where it was cut short. Shards share nothing
but the volume. There, a mean's checkpoints and the finished file of each shard are in
`shards/NAME/I-of-N`, vectors in `vectors/NAME/I-of-N`.
"""

import asyncio
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actvec.server.config import ServerConfig
from actvec.server.errors import MeanNotFoundError, RequestError
from actvec.server.means.checkpoint import JobDirectory
from actvec.server.means.mean_job import NO_DOCUMENT
from actvec.server.means.merging import by_reason, merged
from actvec.server.means.replica import Replica
from actvec.server.means.store import MeanStore, checked_name
from actvec.server.programs import ProgramError, actvec_command, run_json
from actvec.server.server import Server, engine_thread
from actvec.server.site import Site
from actvec.server.worker import Worker
from actvec.v1.means_pb2 import CorpusMean, SkippedDocuments

log = logging.getLogger(__name__)

_SUMMARY = "summary.json"


class NoShardsError(Exception):
    """Some shards could not be computed, however often they were tried."""


class ShardRunner:
    """Computes shards with a worker's model.

    Args:
        worker: Whose model.
        config: How it serves the program beside it.
        site: Where files are.
    """

    def __init__(self, worker: Worker, config: ServerConfig, site: Site) -> None:
        self._worker = worker
        self._config = config
        self._site = site

    async def mean(
        self, corpus: str, name: str, shard: str, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The mean of a shard, on the volume when this returns; its record.

        What was committed by an earlier attempt, in whatever container, is not computed again. A
        shard of which no document can be used has no mean; its record is of 0 documents, and says
        what was left out.

        Args:
            corpus: Its name in `corpora/` of the volume.
            name: Names the whole.
            shard: `I/N`.
            options: Further ones of `actvec mean compute`.

        Raises:
            RequestError: a name is none.
            ProgramError: it could not be computed.
            EngineLostError: the engine hangs; the process is to end.
            CutShortError: the server did not end in time, and the engine may be at a step still;
                likewise.
        """
        folder = _folder("shards", name, shard)
        command = actvec_command(
            *("mean", "compute", str(await asyncio.to_thread(self._site.corpus, corpus))),
            **{"name": name, "shard": shard, "json": True, **options},
        )
        config = replace(self._config, data_dir=self._site.local / folder)
        replica = await asyncio.to_thread(self._site.replica, folder)
        try:
            return await self._beside_server(command, config, replica)
        except ProgramError as error:
            # Its words are all that a program has for an error. A checkpoint would not do: one of
            # a job that was cut short may be of documents that were left out, too.
            if NO_DOCUMENT not in str(error):
                raise
        job = JobDirectory(config.data_dir / "jobs" / name)
        return await asyncio.to_thread(_record_of_nothing, job)

    async def vectors(
        self, corpus: str, name: str, shard: str, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The vectors of a shard, on the volume when this returns; what `actvec stream` says.

        Args:
            corpus: Its name in `corpora/` of the volume.
            name: Names the whole.
            shard: `I/N`.
            options: Further ones of `actvec stream`.

        Raises:
            RequestError: a name is none.
            ProgramError: they could not be computed.
            EngineLostError: the engine hangs; the process is to end.
            CutShortError: the server did not end in time, and the engine may be at a step still;
                likewise.
        """
        folder = _folder("vectors", name, shard)
        there, here = self._site.mount / folder, self._site.local / folder
        await asyncio.to_thread(self._site.volume.reload)
        asked = {"corpus": corpus, **options}
        if (there / _SUMMARY).exists():
            found: dict[str, Any] = json.loads((there / _SUMMARY).read_text())
            if found["asked"] != asked:
                raise RequestError(
                    "name",
                    f"is {name!r}, under which there are other vectors already: {found['asked']};"
                    " use another, or remove those from the volume",
                )
            return found | {"worker_seconds": 0.0}
        command = actvec_command(
            *("stream", str(await asyncio.to_thread(self._site.corpus, corpus))),
            **{"out": here, "shard": shard, "resume": True, "json": True, **options},
        )
        made = await self._beside_server(command, self._config, self._worker.replica)
        made["stamp"] = json.loads((here / "manifest.json").read_text())["stamp"]
        made["asked"] = asked
        (here / _SUMMARY).write_text(json.dumps(made))
        await asyncio.to_thread(_move, here, there)
        await asyncio.to_thread(self._site.volume.commit)
        return made

    async def _beside_server(
        self, command: Sequence[str], config: ServerConfig, replica: Replica
    ) -> dict[str, Any]:
        began = time.monotonic()
        thread = engine_thread()
        worker = self._worker
        server = await Server.start(config, worker.engine, worker.loaded, thread, replica)
        environment = {
            "ACTVEC_TARGET": config.address(server.port),
            "ACTVEC_TOKEN": config.access.token or "",
        }
        losing = asyncio.create_task(server.lost(config.step_timeout))
        running = asyncio.create_task(run_json(command, environment))
        try:
            await asyncio.wait({losing, running}, return_when=asyncio.FIRST_COMPLETED)
            if losing.done():
                raise losing.result()
            made = running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            try:
                await (server.abandon() if losing.done() else server.stop(config.grace))
            finally:
                losing.cancel()
                thread.shutdown(wait=False)
        return made | {"worker_seconds": time.monotonic() - began}


def shards_of(count: int) -> list[str]:
    """`I/N` for each of so many shards.

    Raises:
        RequestError: there is to be none.
    """
    if count < 1:
        raise RequestError("shards", f"is 1 or more, not {count}")
    return [f"{number}/{count}" for number in range(1, count + 1)]


def run_shards(
    shards: Sequence[str],
    run: Callable[[Sequence[str]], Iterable[dict[str, Any] | BaseException]],
    attempts: int = 3,
) -> list[dict[str, Any]]:
    """Have all shards computed, those that fail again alone; the results in their order.

    Args:
        shards: `I/N` each.
        run: Computes shards at the same time; gives the result or error of each, in their order.
        attempts: How often a shard is tried.

    Raises:
        NoShardsError: some failed every time; the others need not be computed again.
    """
    done: dict[str, dict[str, Any]] = {}
    failed: dict[str, BaseException] = {}
    for attempt in range(1, attempts + 1):
        left = [shard for shard in shards if shard not in done]
        failed = {}
        for shard, result in zip(left, run(left), strict=True):
            if isinstance(result, BaseException):
                failed[shard] = result
                log.warning(
                    "shard %s failed, attempt %d of %d: %s", shard, attempt, attempts, result
                )
            else:
                done[shard] = result
        if not failed:
            return [done[shard] for shard in shards]
    reasons = "; ".join(f"{shard}: {error}" for shard, error in failed.items())
    raise NoShardsError(
        f"{len(failed)} of {len(shards)} shards failed {attempts} times; run the same again and the"
        f" others are not computed anew. {reasons}"
    )


def merge_means(site: Site, name: str, done: Mapping[str, Mapping[str, Any]]) -> CorpusMean:
    """One mean of those of all shards, stored on the volume; theirs are removed.

    Args:
        site: The files of the machine that does it.
        name: Names the whole.
        done: What `ShardRunner.mean` said of each shard. One of 0 documents has no part in the
            mean, and what it left out is in its record.

    Raises:
        RequestError: the name is none, or no document of any shard could be used.
        MeanNotFoundError: that of a shard is not on the volume.
        MeanMismatchError: they were made by different models.
        MeanCorruptError: a file was altered.
        StorageError: the volume cannot be written.
    """
    site.volume.reload()
    stores: dict[str, MeanStore] = {}
    records = []
    left_out = []
    for shard, said in done.items():
        if not said["documents"]:
            left_out += [SkippedDocuments(**entry) for entry in said["skipped"]]
            continue
        store = MeanStore(site.mount / _folder("shards", name, shard) / "means")
        found = store.records()
        if not found:
            raise MeanNotFoundError(
                f"the mean of shard {shard} is not on the volume; run the same again, and it is"
                " computed anew"
            )
        stores[found[0].id] = store
        records.append(found[0])
    if not records:
        # With a mended corpus, or other options, the same name is begun anew.
        _remove_shards(site, name)
        raise RequestError("corpus", f"has no document to average: {'; '.join(told(left_out))}")
    whole = MeanStore(site.local / "means", replica=site.replica())
    total, record = merged(records, lambda record: stores[record.id].load(record), name, left_out)
    made = whole.save(total, record)
    _remove_shards(site, name)
    return made


def told(skipped: Iterable[SkippedDocuments]) -> list[str]:
    """What was left out, in words: a line for each reason."""
    return [
        f"left out for {one.reason}: {one.documents:,}; the first is {one.first_id}:"
        f" {one.first_message}"
        for one in by_reason(skipped)
    ]


def _remove_shards(site: Site, name: str) -> None:
    shutil.rmtree(site.mount / "shards" / name)
    site.volume.commit()


def _record_of_nothing(job: JobDirectory) -> dict[str, Any]:
    """What the record of a job's mean would say that has no document in it."""
    progress = job.load()
    skipped = progress.skipped.items() if progress is not None else ()
    return {
        "documents": 0,
        "tokens": 0,
        "skipped": [{"reason": reason, **vars(entry)} for reason, entry in skipped],
        "worker_seconds": 0.0,
    }


def _folder(kind: str, name: str, shard: str) -> Path:
    return Path(kind, checked_name("name", name), shard.replace("/", "-of-"))


def _move(source: Path, target: Path) -> None:
    """Move a folder to the volume, where it is whole or not there."""
    partial = target.with_name(f".partial-{uuid.uuid4().hex}")
    shutil.copytree(source, partial)
    partial.rename(target)
    shutil.rmtree(source)
