"""Conversion between Ray's batches and documents."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from actvec.client.extras import import_extra
from actvec.client.records.inputs import make_document
from actvec.client.records.vectors import Document, Failure
from actvec.server.config import Limits, ModelOptions
from actvec.server.errors import RequestError, StartupError

if TYPE_CHECKING:
    import pyarrow as pa

    from actvec.shards.host import ModelHost


def load_host(
    *, layers: Sequence[int] | None = None, step_tokens: int | None = None, **options: Any
) -> "ModelHost":
    """Load the model of this actor.

    Args:
        layers: Blocks whose states to average; None for the server's default.
        step_tokens: Tokens of a forward pass; None for as many as suit the device.
        **options: Further options of `ModelOptions`.

    Raises:
        TypeError: an option is unknown.
        StartupError: the model or an option is unusable, or the cluster has GPUs and this actor got
            none.
    """
    chosen = ModelOptions(layers=None if layers is None else tuple(layers), **options)
    ray = import_extra("ray", "ray")
    if ray.is_initialized() and chosen.device == "auto":
        mine = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        if not mine and ray.cluster_resources().get("GPU", 0) >= 1:
            raise StartupError(
                "the cluster has GPUs, and this actor was given none: it would compute on its CPU. "
                "Pass num_gpus=1 to map_batches, or the device 'cpu' if that is meant"
            )
    # Imports torch, which the driver may lack.
    from actvec.shards.host import ModelHost  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="actvec-ray-"))
    return ModelHost.load(chosen, folder, limits=Limits(step_tokens=step_tokens))


def to_table(batch: Any) -> "pa.Table":
    """Convert a batch in any of Ray's formats to a table."""
    accessor = import_extra("ray.data.block", "ray").BlockAccessor
    table: pa.Table = accessor.for_block(accessor.batch_to_block(batch)).to_arrow()
    return table


@dataclass(frozen=True)
class RowColumns:
    """The columns that make a row a document; see `ActivationVectors` for the attributes."""

    text_column: str | None = "text"
    id_column: str | None = "id"
    messages_column: str | None = None
    token_ids_column: str | None = None
    spans_column: str | None = None

    @classmethod
    def taken(cls, options: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The columns that options name, and the other options."""
        names = {field.name for field in fields(cls)} & options.keys()
        rest = {name: value for name, value in options.items() if name not in names}
        return cls(**{name: options[name] for name in names}), rest

    def sources(self, table: "pa.Table") -> dict[str, str]:
        """The columns of a table that may hold a row's document, by what they hold.

        Raises:
            RequestError: a column does not exist.
        """
        others = {"messages": self.messages_column, "token_ids": self.token_ids_column}
        found = {kind: name for kind, name in others.items() if name is not None}
        text = self.text_column
        if text is not None and not (found and text not in table.column_names):
            found["text"] = text
        for kind, name in found.items():
            _check(table, f"{kind}_column", name)
        return found


def documents_of(table: "pa.Table", columns: RowColumns) -> Iterator[Document | Failure]:
    """Convert a table's rows to documents; a row that is none becomes a failure.

    Raises:
        RequestError: a column does not exist or does not hold texts.
    """
    sources = columns.sources(table)
    values = {kind: table.column(name).to_pylist() for kind, name in sources.items()}
    ids, spans = (
        _optional(table, argument, getattr(columns, argument))
        for argument in ("id_column", "spans_column")
    )
    for row in range(len(table)):
        document_id = "" if ids[row] is None else str(ids[row])
        given = {kind: held[row] for kind, held in values.items() if held[row] is not None}
        if not isinstance(given.get("text", ""), str):
            raise RequestError(
                sources["text"], f"holds {type(given['text']).__name__}, not strings"
            )
        if given:
            yield make_document(document_id, given, spans[row], None)
        else:
            first = next(iter(sources.values()), "")
            message = f"{', '.join(sources.values())}: is null"
            yield Failure(document_id, "INVALID_ARGUMENT", message, first)


def _optional(table: "pa.Table", argument: str, name: str | None) -> list[Any]:
    if name is None:
        return [None] * len(table)
    _check(table, argument, name)
    values: list[Any] = table.column(name).to_pylist()
    return values


def _check(table: "pa.Table", argument: str, name: str) -> None:
    if name not in table.column_names:
        raise RequestError(
            argument, f"is {name!r}; the columns are: {', '.join(table.column_names) or 'none'}"
        )


def end_process() -> NoReturn:
    """End the process: nothing in it repairs an engine. Ray repeats the batch in a new actor."""
    os._exit(os.EX_SOFTWARE)
