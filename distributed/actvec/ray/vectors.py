"""The step of a Ray Data pipeline that adds activation vectors to rows."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from actvec.client.extras import import_extra
from actvec.client.records.settings import Mode, Truncation, VectorSettings
from actvec.client.records.vectors import Result, Vector
from actvec.ray.batches import RowColumns, documents_of, end_process, load_host, to_table
from actvec.server.errors import EngineLostError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

    from actvec.shards.host import ModelHost

log = logging.getLogger(__name__)

# The same key as in `ParquetSink`.
STAMP = b"actvec.stamp"

# The added columns.
ADDED = ("vector", "tokens", "tokens_used", "error")


class ActivationVectors:
    """Adds activation vectors to rows of texts, chats or token ids; for `Dataset.map_batches`.

    Each actor holds the model in its process. All columns stay, and four are added: `vector` (`[L *
    K * D]` float32, null if there is none), `tokens`, `tokens_used` and `error` (the reason why
    there is no vector, starting with the name of a google.rpc code; null if there is one). The
    schema's metadata hold the stamp of the vectors, as JSON under `actvec.stamp`.

    Args:
        mode: A preset of pools: `short` (`exp_933`) or `long` (four pools).
        pools: Your own pools instead, for example `["mean", "exp:0.1"]`.
        separate: Whether to keep the model's `layers` separate, instead of averaging them.
        center: The file of a corpus mean, as `corpus_mean` writes it; every worker reads it. None
            for raw vectors.
        truncation: How to treat a text beyond the model's context: as an `error`, or by keeping its
            `start` or its `end`.
        prepend_bos: Whether the tokenizer's BOS token comes first; by default if it has one.
        add_generation_prompt: For chats: whether the template ends with the beginning of an answer.
        chat_template_kwargs: For chats: further arguments of the model's template.
        text_column: The column of texts; it may be missing if another source is named.
        id_column: The column of ids, which errors name; None for no ids.
        messages_column: The column of chats: lists of `{"role": ..., "content": ...}`.
        token_ids_column: The column of token ids. A row has one of these three.
        spans_column: The column of spans, for pools like `span:answer`: lists of `{"name": ...,
            "start": ..., "end": ...}`.
        **model: The model, and how to run it: `model` (a hub id, a directory that every worker has,
            or `demo`), the other attributes of `actvec.server.config.ModelOptions`, such as
            `revision`, `adapter`, `layers`, `dtype` and `hook`, and `step_tokens`.

    Attributes:
        stamp: The stamp of all vectors.

    Raises:
        ValueError: a setting is unknown.
        TypeError: an option is unknown.
        StartupError: the model or an option is unusable, or the cluster has GPUs and this actor got
            none.
        RequestError: the mean's file is invalid, or the settings do not fit this model.
        MeanMismatchError: the mean is of another model or other settings.
    """

    def __init__(
        self,
        *,
        mode: Mode | None = None,
        pools: Sequence[str] = (),
        separate: bool = False,
        center: str | Path | None = None,
        truncation: Truncation = "error",
        prepend_bos: bool | None = None,
        add_generation_prompt: bool = False,
        chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
        text_column: str | None = "text",
        id_column: str | None = "id",
        messages_column: str | None = None,
        token_ids_column: str | None = None,
        spans_column: str | None = None,
        **model: Any,
    ) -> None:
        settings = VectorSettings(
            mode=mode,
            pools=pools,
            separate=separate,
            truncation=truncation,
            prepend_bos=prepend_bos,
            add_generation_prompt=add_generation_prompt,
            chat_template_kwargs=chat_template_kwargs,
        )
        self._columns = RowColumns(
            text_column, id_column, messages_column, token_ids_column, spans_column
        )
        host = load_host(**model)
        # Imports torch, which the driver may lack.
        from actvec.shards.vectors import VectorMaker  # noqa: PLC0415

        if center is not None:
            settings = replace(settings, center=_stored(host, Path(center)))
        self._make = VectorMaker(host, settings)
        self.stamp = self._make.stamp

    def __call__(self, batch: Any) -> "pa.Table":
        """Return the batch with its vectors; the process ends if the engine is lost.

        Raises:
            RequestError: a column does not exist, has another type, or has the name of an added
                one.
        """
        table = to_table(batch)
        if taken := [name for name in ADDED if name in table.column_names]:
            raise RequestError("batch", f"has a column {taken[0]!r} already; rename it")
        results: list[Result | None] = [None] * len(table)
        try:
            for result in self._make(documents_of(table, self._columns)):
                results[result.index] = result
        except EngineLostError as error:
            log.critical("%s; this actor ends, and Ray starts another", error)
            end_process()
        return self._with_results(table, results)

    def _with_results(self, table: "pa.Table", results: list[Result | None]) -> "pa.Table":
        pa = import_extra("pyarrow", "ray")
        vectors = [one if isinstance(one, Vector) else None for one in results]
        numbers = [None if one is None else one.values for one in vectors]
        errors = [
            None if one is None or isinstance(one, Vector) else f"{one.code}: {one.message}"
            for one in results
        ]
        tokens, used = (
            pa.array([None if one is None else getattr(one, name) for one in vectors], pa.int32())
            for name in ("tokens", "tokens_used")
        )
        added = {
            "vector": pa.array(numbers, pa.list_(pa.float32())),
            "tokens": tokens,
            "tokens_used": used,
            "error": pa.array(errors, pa.string()),
        }
        for name, values in added.items():
            table = table.append_column(name, values)
        metadata = {**(table.schema.metadata or {}), STAMP: json.dumps(self.stamp.to_dict())}
        return table.replace_schema_metadata(metadata)


def _stored(host: "ModelHost", path: Path) -> str:
    """Add a mean's file to the means of this process, and return its id.

    Raises:
        RequestError: it is not a mean's file, or has another width.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError("center", f"cannot be read from {path}: {error.strerror}") from error
    return host.add_mean(path.stem, content)
