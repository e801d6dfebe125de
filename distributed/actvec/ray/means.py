"""Corpus means computed by a Ray cluster."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actvec.client.bulk.remote import is_remote, write_file
from actvec.client.extras import import_extra
from actvec.client.files import given_path, write_atomic
from actvec.client.records.means import CorpusMean
from actvec.client.records.settings import MeanSettings, Truncation
from actvec.client.records.vectors import Failure
from actvec.ray.batches import RowColumns, documents_of, end_process, load_host, to_table
from actvec.server.errors import EngineLostError

if TYPE_CHECKING:
    import pyarrow as pa

    import ray.data

log = logging.getLogger(__name__)

# Documents per part. At the width of Pythia-12B and 2048 tokens a part has 130 MB, whatever is in
# it.
PART_DOCUMENTS = 2048

# Parts of a mean at most, each as large as the mean's file.
_PARTS = 64


class PartialMeans:
    """Sums a batch of rows of texts for a corpus mean; for `Dataset.map_batches`.

    Each batch becomes one row: `part`, the file of the batch's mean with its exact sums (empty
    without a usable document), and `skipped`, JSON.

    Args:
        name: The mean's name.
        variance: Whether to sum squares too.
        separate: Whether each layer has a mean of its own, instead of their average.
        truncation: How to treat a text beyond the context; with `error` it is skipped and counted.
        prepend_bos: As in `ActivationVectors`.
        text_column: As in `ActivationVectors`.
        id_column: As in `ActivationVectors`.
        messages_column: As in `ActivationVectors`.
        token_ids_column: As in `ActivationVectors`.
        **model: As in `ActivationVectors`.

    Raises:
        StartupError: the model or an option is unusable.
        RequestError: BOS is requested, and the tokenizer has none.
    """

    def __init__(
        self,
        *,
        name: str,
        variance: bool = False,
        separate: bool = False,
        truncation: Truncation = "error",
        prepend_bos: bool | None = None,
        text_column: str | None = "text",
        id_column: str | None = "id",
        messages_column: str | None = None,
        token_ids_column: str | None = None,
        **model: Any,
    ) -> None:
        self._columns = RowColumns(text_column, id_column, messages_column, token_ids_column)
        host = load_host(**model)
        # Imports torch, which the driver may lack.
        from actvec.shards.means import SumMaker  # noqa: PLC0415

        settings = MeanSettings(
            job=name,
            name=name,
            truncation=truncation,
            prepend_bos=prepend_bos,
            variance=variance,
            separate=separate,
        )
        self._make = SumMaker(host, settings)

    def __call__(self, batch: Any) -> "pa.Table":
        """Return the single row of a batch; the process ends if the engine is lost.

        Raises:
            RequestError: a column does not exist or has another type.
            DoesNotFitError: a document does not fit memory.
            EngineError: the engine failed.
        """
        pa = import_extra("pyarrow", "ray")
        documents = documents_of(to_table(batch), self._columns)
        try:
            part = self._make.part(documents)
        except EngineLostError as error:
            log.critical("%s; this actor ends, and Ray starts another", error)
            end_process()
        return pa.table(
            {
                "part": pa.array([part.file], pa.large_binary()),
                "skipped": pa.array(
                    [json.dumps([asdict(one) for one in part.skipped])], pa.string()
                ),
            }
        )


def corpus_mean(
    dataset: "ray.data.Dataset",
    out: str | Path,
    *,
    name: str,
    part_documents: int = PART_DOCUMENTS,
    map_options: dict[str, Any] | None = None,
    **options: Any,
) -> CorpusMean:
    """Compute the mean of a dataset's documents into a file as a server stores it.

    If a worker dies, Ray repeats its batch, and the new result replaces the lost one: each document
    counts once. No progress outlives the driver; that of `write_mean` does.

    Args:
        dataset: Rows with a column of texts, and one of ids.
        out: The safetensors file to write.
        name: The mean's name.
        part_documents: Documents that a worker sums before it returns the sums. A part is as large
            as the mean's file.
        map_options: Options of `map_batches`, such as `num_gpus` and `compute`.
        **options: Options of `PartialMeans`.

    Returns:
        The mean's record.

    Raises:
        RequestError: the name is invalid, or no document is usable.
        MeanMismatchError: workers have loaded different models.
        ray.exceptions.RayTaskError: a worker failed; its error is the cause.
        OSError: the file cannot be written.
    """
    parts = dataset.map_batches(
        PartialMeans,
        fn_constructor_kwargs={"name": name, **options},
        batch_size=part_documents,
        batch_format="pyarrow",
        **(map_options or {}),
    )
    return merge_parts(parts.iter_rows(), out, name)


class FileSums:
    """Sums files of documents into files of sums; for `Dataset.map_batches`.

    A row's `files` names the files of one part, whose sums are written atomically under the name of
    the first. A worker that dies leaves no part or a whole one.

    Args:
        documents: The folder of the files.
        sums: The folder of the parts.
        **options: Options of `PartialMeans`.

    Raises:
        StartupError: the model or an option is unusable.
    """

    def __init__(self, *, documents: str, sums: str, **options: Any) -> None:
        self._documents, self._sums = Path(documents), Path(sums)
        self._make = PartialMeans(**options)

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        """Write the parts of a batch, and return their files' names.

        Raises:
            DoesNotFitError: a document does not fit memory.
            EngineError: the engine failed.
            OSError: a part cannot be written.
        """
        pa, pq = import_extra("pyarrow", "ray"), import_extra("pyarrow.parquet", "ray")
        for files in batch["files"].to_pylist():
            tables = [pq.read_table(self._documents / name) for name in files]
            content = pa.BufferOutputStream()
            pq.write_table(self._make(pa.concat_tables(tables)), content)
            write_atomic(self._sums / files[0], content.getvalue().to_pybytes())
        return batch


def parts_of(files: list[str]) -> list[list[str]]:
    """The files of each part: no more parts than `_PARTS`, and the same ones of the same files."""
    size = -(-len(files) // _PARTS)
    return [files[first : first + size] for first in range(0, len(files), max(size, 1))]


def merge_parts(
    parts: Iterable[Mapping[str, Any]],
    out: str | Path,
    name: str,
    unreadable: Iterable[Failure] = (),
) -> CorpusMean:
    """Merge the rows that `PartialMeans` makes into the file of one mean.

    Args:
        parts: The rows.
        out: The safetensors file to write, or its URL.
        name: The mean's name.
        unreadable: Documents missing from the parts, counted as skipped.

    Raises:
        RequestError: the name is invalid, or no document is usable.
        MeanMismatchError: workers have loaded different models.
        OSError: the file cannot be written.
    """
    from actvec.client.messages.means import decode_mean  # noqa: PLC0415 - as of the others
    from actvec.server.means.record import SkippedDocuments  # noqa: PLC0415
    from actvec.server.service.mean_messages import mean_message  # noqa: PLC0415
    from actvec.shards.merging import PartMerger  # noqa: PLC0415

    merger = PartMerger(name)
    for failure in unreadable:
        merger.add(b"", [SkippedDocuments(failure.code, 1, failure.message, failure.id)])
    for row in parts:
        skipped = [SkippedDocuments(**one) for one in json.loads(row["skipped"])]
        merger.add(row["part"], skipped)
    record, content = merger.finish()
    if is_remote(out):
        write_file(str(out), content, "out")
    else:
        write_atomic(given_path(out), content)
    return decode_mean(mean_message(record))
