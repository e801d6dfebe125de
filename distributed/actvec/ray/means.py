"""Corpus means computed by a Ray cluster."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from actvec.client.extras import import_extra
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

# Parts of a mean at most, and files of documents of a part at least: a part is as large as the
# mean's file.
_PARTS, _PART_FILES = 64, 4


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
        add_generation_prompt: As in `ActivationVectors`.
        chat_template_kwargs: As in `ActivationVectors`.
        **options: The columns of a row, and the model, as in `ActivationVectors`.

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
        add_generation_prompt: bool = False,
        chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        self._columns, model = RowColumns.taken(options)
        host = load_host(**model)
        # Imports torch, which the driver may lack.
        from actvec.shards.means import SumMaker  # noqa: PLC0415

        settings = MeanSettings(
            job=name,
            name=name,
            truncation=truncation,
            prepend_bos=prepend_bos,
            add_generation_prompt=add_generation_prompt,
            chat_template_kwargs=chat_template_kwargs,
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


def parts_of(files: list[str]) -> list[list[str]]:
    """The files of each part: no more parts than `_PARTS`, and the same ones of the same files."""
    size = max(-(-len(files) // _PARTS), _PART_FILES)
    return [files[first : first + size] for first in range(0, len(files), size)]


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
    from actvec.server.means.record import SkippedDocuments  # noqa: PLC0415 - torch, as above
    from actvec.shards.merging import PartMerger  # noqa: PLC0415

    merger = PartMerger(name)
    for failure in unreadable:
        merger.add(b"", [SkippedDocuments(failure.code, 1, failure.message, failure.id)])
    for row in parts:
        skipped = [SkippedDocuments(**one) for one in json.loads(row["skipped"])]
        merger.add(row["part"], skipped)
    return merger.write(out, "out")
