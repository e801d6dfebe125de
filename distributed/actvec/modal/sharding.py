"""Shards of a corpus on a volume: computed by any container, merged by one.

Shards share only the volume. It holds a mean's checkpoints and the finished file of each shard in
`shards/NAME/I-of-N`, and vectors in `vectors/NAME/I-of-N`.
"""

import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actvec.client.bulk import Layout
from actvec.client.bulk.failures import first_failure
from actvec.client.documents import Columns, DocumentSource, Shard, open_documents
from actvec.client.records.settings import MeanSettings, VectorSettings
from actvec.modal.volume import Site
from actvec.server.errors import MeanNotFoundError, RequestError
from actvec.server.means.naming import checked_name
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.shards.folders import sum_shard
from actvec.shards.host import ModelHost
from actvec.shards.merging import PartMerger
from actvec.shards.places import MEANS, Place
from actvec.shards.vectors import write_vectors

log = logging.getLogger(__name__)

_SUMMARY = "summary.json"

# Options of a shard that name the fields of its corpus.
_FIELDS = ("column", "id_column", "keep")


class NoShardsError(Exception):
    """Some shards failed at every attempt."""


class ShardRunner:
    """Computes shards with the model of this container.

    Args:
        host: The model.
        site: The files.
    """

    def __init__(self, host: ModelHost, site: Site) -> None:
        self._host = host
        self._site = site

    def mean(
        self, corpus: str, name: str, shard: str, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Compute the mean of a shard and store it on the volume; return its record.

        Resumes from the last commit of an earlier attempt, in any container. A shard without a
        usable document has no mean; its record has 0 documents, and lists the skipped ones.

        Args:
            corpus: Its name in `corpora/` on the volume.
            name: The name of the whole mean.
            shard: `I/N`.
            options: Further options of `MeanSettings`, and the fields of the corpus.

        Raises:
            RequestError: a name is invalid.
            EngineLostError: the engine is lost; the process must end.
            Exception: whatever `sum_shard` raises.
        """
        began = time.monotonic()
        folder = _folder("shards", name, shard)
        made = sum_shard(
            self._host,
            self._source(corpus, shard, options),
            MeanSettings(job=name, name=name, **_without(options, _FIELDS)),
            Place(self._site.local / folder, self._site.replica(folder)),
        )
        return made.to_dict() | {"worker_seconds": time.monotonic() - began}

    def vectors(
        self, corpus: str, name: str, shard: str, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Compute the vectors of a shard onto the volume; return their number and stamp.

        Args:
            corpus: Its name in `corpora/` on the volume.
            name: The name of the folder.
            shard: `I/N`.
            options: The `format` of the files, the fields of the corpus, and options of
                `VectorSettings`.

        Raises:
            RequestError: a name is invalid, or there are other vectors of this name.
            EngineLostError: the engine is lost; the process must end.
            Exception: whatever `write_vectors` raises.
        """
        began = time.monotonic()
        folder = _folder("vectors", name, shard)
        there, here = self._site.mount / folder, self._site.local / folder
        source = self._source(corpus, shard, options)
        asked = {"corpus": corpus, "input": source.identity(), **options}
        if (there / _SUMMARY).exists():
            found: dict[str, Any] = json.loads((there / _SUMMARY).read_text())
            if found["asked"] != asked:
                raise RequestError(
                    "name",
                    f"is {name!r}, under which there are other vectors already: {found['asked']};"
                    " use another, or remove those from the volume",
                )
            return found | {"worker_seconds": 0.0}
        settings = _without(options, ("format", *_FIELDS))
        layout = Layout(options["format"]) if "format" in options else Layout()
        done = write_vectors(self._host, source, here, VectorSettings(**settings), layout)
        made = {
            "vectors": done.vectors,
            "failed": done.failed,
            "first_error": first_failure(here / "errors.jsonl"),
            "tokens": done.tokens,
            "shortened": done.shortened,
            "stamp": json.loads((here / "manifest.json").read_text())["stamp"],
            "asked": asked,
            "worker_seconds": time.monotonic() - began,
        }
        (here / _SUMMARY).write_text(json.dumps(made))
        _move(here, there)
        self._site.volume.commit()
        return made

    def _source(self, corpus: str, shard: str, options: Mapping[str, Any]) -> DocumentSource:
        path = self._site.corpus(corpus)
        return open_documents(path, Shard.parse(shard), columns_of(options))


def columns_of(options: Mapping[str, Any]) -> Columns:
    """The fields of a corpus that a shard's options name."""
    keep = tuple(options.get("keep", ()))
    return Columns(options.get("column", "text"), options.get("id_column", "id"), keep)


def _without(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def shards_of(count: int) -> list[str]:
    """Return `I/N` for each of `count` shards.

    Raises:
        RequestError: `count` is less than 1.
    """
    if count < 1:
        raise RequestError("shards", f"is 1 or more, not {count}")
    return [f"{number}/{count}" for number in range(1, count + 1)]


def run_shards(
    shards: Sequence[str],
    run: Callable[[Sequence[str]], Iterable[dict[str, Any] | BaseException]],
    attempts: int = 3,
) -> list[dict[str, Any]]:
    """Compute all shards, retry those that fail, and return the results in order.

    Args:
        shards: `I/N` each.
        run: Computes shards in parallel; yields the result or error of each, in order.
        attempts: Maximum number of attempts per shard.

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
        f"{len(failed)} of {len(shards)} shards failed {attempts} times; run the same command"
        f" again: it computes only these. {reasons}"
    )


def merge_means(site: Site, name: str, done: Mapping[str, Mapping[str, Any]]) -> MeanRecord:
    """Merge the means of all shards, store the result on the volume, and remove theirs.

    Args:
        site: The files of this machine.
        name: The name of the whole mean.
        done: The result of `ShardRunner.mean` per shard.

    Raises:
        RequestError: the name is invalid, or no shard has a usable document.
        MeanNotFoundError: the mean of a shard is not on the volume.
        MeanMismatchError: different models made them.
        MeanCorruptError: a file was altered.
        StorageError: the volume cannot be written.
    """
    site.volume.reload()
    merger = PartMerger(name)
    for shard, record in done.items():
        if not merger.add_shard(site.mount / _folder("shards", name, shard) / MEANS, record):
            raise MeanNotFoundError(
                f"the mean of shard {shard} is not on the volume; run the same command again to"
                " compute it"
            )
    try:
        total, start = merger.sums()
    except RequestError:
        # So that the same name can start again with a corrected corpus, or other options.
        _remove_shards(site, name)
        raise
    made = MeanStore(site.local / MEANS, replica=site.replica()).save(total, start)
    _remove_shards(site, name)
    return made


def _remove_shards(site: Site, name: str) -> None:
    shutil.rmtree(site.mount / "shards" / name)
    site.volume.commit()


def _folder(kind: str, name: str, shard: str) -> Path:
    return Path(kind, checked_name(name), shard.replace("/", "-of-"))


def _move(source: Path, target: Path) -> None:
    """Move a folder to the volume, atomically."""
    partial = target.with_name(f".partial-{uuid.uuid4().hex}")
    shutil.copytree(source, partial)
    partial.rename(target)
    shutil.rmtree(source)
