"""A corpus mean from shards in folders: each committed as it is summed, then merged exactly.

The folder of shard I of N is `I-of-N`, on a disk or in a store. Once a shard is done its record is
in `record.json` there.
"""

import json
from pathlib import Path
from typing import Any

from actvec.client.documents import DocumentSource
from actvec.client.errors import FailedPrecondition
from actvec.client.files import write_json
from actvec.client.messages.means import decode_mean
from actvec.client.records.means import CorpusMean
from actvec.client.records.settings import MeanSettings
from actvec.server.jobs.checkpoint import JobDirectory
from actvec.server.means.store import MeanStore
from actvec.server.service.mean_messages import mean_message
from actvec.shards.host import ModelHost
from actvec.shards.means import compute_mean
from actvec.shards.merging import PartMerger
from actvec.shards.places import JOBS, MEANS, RECORD, Place, finished_shards


def sum_shard(
    host: ModelHost, source: DocumentSource, settings: MeanSettings, place: Place
) -> CorpusMean:
    """Compute the mean of a shard into its folder; run it again to resume, or to read the result.

    Args:
        host: The model.
        source: The documents of the shard.
        settings: What the mean is.
        place: The folder, of this shard and this process alone.

    Returns:
        Its record; without a document that can be used, one of 0 documents.

    Raises:
        Exception: what `compute_mean` raises.
    """
    store = MeanStore(place.folder / MEANS, replica=place.replica)
    store.sweep()
    record = compute_mean(
        host,
        source,
        settings,
        JobDirectory(place.folder / JOBS / settings.job, place.replica),
        store,
        commit_every=place.commit_every,
    )
    made = decode_mean(mean_message(record))
    write_json(place.folder / RECORD, made.to_dict())
    return made


def merge_shards(folder: str | Path, name: str, to: str | Path) -> CorpusMean:
    """The mean of all shards in a folder, in one file.

    Args:
        folder: The folder of the shards' folders, or its URL.
        name: Names the mean.
        to: The safetensors file to write, or its URL.

    Raises:
        FailedPrecondition: a shard is missing or not done, or they are of another N.
        RequestError: no document could be used.
        MeanMismatchError: shards were summed by different models, or are of the same documents.
        MeanCorruptError: a file was altered.
        OSError: the file cannot be written.
    """
    merger = PartMerger(name)
    for where, path in finished_shards(folder):
        if not merger.add_shard(path / MEANS, _record(where, path, name)):
            raise FailedPrecondition(
                f"{where} has lost its mean; remove it and run the shard again"
            )
    return merger.write(to, "to")


def _record(where: str, path: Path, name: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((path / RECORD).read_bytes())
    except FileNotFoundError:
        raise FailedPrecondition(f"the shard in {where} is not done; run it again first") from None
    if record["documents"] and record["name"] != name:
        raise FailedPrecondition(f"{where} is a shard of the mean {record['name']!r}, not {name!r}")
    return record
