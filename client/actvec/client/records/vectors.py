"""Documents in; vectors and failures out."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import ActvecError
from actvec.client.records.columns import NO_COLUMNS, Scalar, as_columns
from actvec.client.records.content import (
    Message,
    MessageLike,
    Source,
    Span,
    SpanLike,
    as_ids,
    as_messages,
    as_spans,
)
from actvec.client.records.display import Html, details, record, sparkline, table
from actvec.client.records.settings import canonical_pool
from actvec.client.records.stamp import Stamp
from actvec.pooling import ids_digest, messages_digest, text_digest


@dataclass(frozen=True, init=False)
class Document:
    """A document: a text, a chat or token ids, under an id of your own.

    Examples:
        >>> Document("a", "Some text.", spans=[("noun", 5, 9)])
        >>> Document("b", messages=[{"role": "user", "content": "Hello!"}])
        >>> Document("c", token_ids=[5, 8, 2])
        >>> Document("d", "More text.", columns={"label": "news", "year": 2024})

    Attributes:
        id: Names the document in its result. Need not be unique.
        text: The text, or None.
        messages: The messages of a chat, or None.
        token_ids: Token ids, used unchanged, or None.
        spans: Parts of a text, in characters, or of token ids, in tokens, for pools like
            `span:answer`. A chat has spans by role instead: `user`, `assistant`, `system`,
            `response` and `prompt`.
        columns: What you know about the document, such as its label: strings, numbers, booleans or
            None by name. They come back with its vector or failure, and change neither: equal
            documents may have different columns.
    """

    id: str
    text: str | None
    messages: tuple[Message, ...] | None
    token_ids: tuple[int, ...] | None
    spans: tuple[Span, ...]
    columns: Mapping[str, Scalar] = field(compare=False)

    def __init__(
        self,
        id: str,  # noqa: A002 - the attribute's name
        text: str | None = None,
        *,
        messages: Iterable[MessageLike] | None = None,
        token_ids: Iterable[int] | None = None,
        spans: Iterable[SpanLike] = (),
        columns: Mapping[str, object] = NO_COLUMNS,
    ) -> None:
        """Pass exactly one of text, messages and token ids.

        Args:
            id: See the class.
            text: See the class.
            messages: `Message`, `{"role": ..., "content": ...}` or `(role, content)` each.
            token_ids: See the class.
            spans: `Span`, `(name, start, end)` or `{"name": ..., "start": ..., "end": ...}` each.
            columns: See the class; dates become ISO 8601 text, and NaN becomes None.

        Raises:
            TypeError: an argument has another type, or none of the three is given.
            ValueError: more than one of them is given, or messages or ids are empty; a chat has
                spans; a span is empty, reversed or misnamed; a column is infinite.
        """
        for name, value in (("id", id), ("text", text)):
            if not isinstance(value, str) and (name == "id" or value is not None):
                raise TypeError(f"the {name} of a document is a str, not {type(value).__name__}")
        sources = {"text": text, "messages": messages, "token_ids": token_ids}
        given = [name for name, value in sources.items() if value is not None]
        if not given:
            raise TypeError("a document needs a text, messages or token_ids; all are None")
        if len(given) > 1:
            raise ValueError(f"a document has one of {', '.join(sources)}, not {len(given)}")
        # A frozen dataclass can set its attributes only like this.
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "messages", None if messages is None else as_messages(messages))
        object.__setattr__(self, "token_ids", None if token_ids is None else as_ids(token_ids))
        object.__setattr__(self, "spans", as_spans(spans))
        object.__setattr__(self, "columns", as_columns(columns))
        if self.spans and messages is not None:
            raise ValueError(
                "a chat has spans by role (user, assistant, system, response, prompt), and none of"
                " its own"
            )

    @property
    def source(self) -> Source:
        """The kind of its content: `text`, `messages` or `token_ids`."""
        if self.messages is not None:
            return "messages"
        return "text" if self.token_ids is None else "token_ids"

    @property
    def content(self) -> str:
        """Its text, or the contents of its messages, one per line; empty for token ids."""
        if self.text is not None:
            return self.text
        return "\n".join(message.content for message in self.messages or ())

    def digest(self) -> bytes:
        """SHA-256 of a plain text's UTF-8; of any other document, of its canonical JSON."""
        spans = [(span.name, span.start, span.end) for span in self.spans]
        if self.messages is not None:
            return messages_digest([(one.role, one.content) for one in self.messages])
        if self.token_ids is not None:
            return ids_digest(self.token_ids, spans)
        text = self.text or ""
        if spans:
            return text_digest(text, spans)
        # A text that cannot travel still needs a digest, by which a job recognizes it.
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


# Rows that a notebook shows of something long.
_SHOWN_ROWS = 12


class PoolRows(dict[str, NDArray[np.float32]]):
    """Rows of a vector by pool, in any written form of a pool."""

    def __missing__(self, written: str) -> NDArray[np.float32]:
        name = canonical_pool(written)
        if name not in self:
            raise KeyError(f"no pool {written!r}; there are: {', '.join(self)}")
        return self[name]


@dataclass(frozen=True, eq=False)
class Vector:
    """The activation vector of one document.

    Examples:
        >>> vector = client.extract("Some text.", pools=["last", "mean"])
        >>> vector.array.shape
        (1, 2, 512)
        >>> vector.pools["mean"].shape
        (512,)

    Attributes:
        values: `[L * K * D]` float32, read-only: L layers (1 for their mean), K pools, width D.
        id: The document's id; empty for a bare text.
        tokens: Tokens of the whole document, BOS included.
        tokens_used: Number of pooled tokens.
        truncated: Whether the document was cut to the context.
        smallest_count: Smallest number of documents behind a used position of the corpus mean; 0
            for a raw vector, or a mean without counts.
        stamp: Everything the vector depends on except the document.
        text_sha256: SHA-256 of a plain text's UTF-8; of a chat, of token ids and of a text with
            spans, of their canonical JSON, as the contract defines it.
        index: Position of the document in its stream, from 0.
        source: Kind of the document's content: `text`, `messages` or `token_ids`.
        bos: Whether its first token is BOS; None from a server of an earlier version.
        columns: The document's columns.
    """

    values: NDArray[np.float32] = field(repr=False)
    id: str
    tokens: int
    tokens_used: int
    truncated: bool
    smallest_count: int
    stamp: Stamp
    text_sha256: str
    index: int = 0
    source: Source = "text"
    bos: bool | None = None
    columns: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def array(self) -> NDArray[np.float32]:
        """The same numbers as `[L, K, D]` float32, a read-only view."""
        return self.values.reshape(*self.stamp.shape, -1)

    @property
    def matrix(self) -> NDArray[np.float32]:
        """The same numbers as `[L * K, D]` float32, one row per entry of `stamp.row_names`."""
        layers, pools = self.stamp.shape
        return self.values.reshape(layers * pools, -1)

    @property
    def pools(self) -> Mapping[str, NDArray[np.float32]]:
        """The pools by name, each `[D]` float32, or `[L, D]` for separate layers; views."""
        array = self.array if self.stamp.separate_layers else self.array[0, :, :]
        rows = np.moveaxis(array, -2, 0)
        return PoolRows(zip((pool.name for pool in self.stamp.pools), rows, strict=True))

    @property
    def norm(self) -> float:
        """The L2 norm."""
        return float(np.linalg.norm(self.values.astype(np.float64)))

    def _repr_html_(self) -> str:
        rows = [
            (name, sparkline(row), f"norm {np.linalg.norm(row.astype(np.float64)):.2f}")
            for name, row in zip(self.stamp.row_names, self.matrix[:_SHOWN_ROWS], strict=False)
        ]
        more = len(self.matrix) - len(rows)
        if more:
            rows.append((f"and {more} more", Html(), ""))
        shape = " x ".join(map(str, self.array.shape))
        title = f"{self.id or 'vector'}: {self.tokens:,} tokens, {shape} numbers"
        return table(title, rows) + details("stamp", Html(self.stamp._repr_html_()))


@dataclass(frozen=True)
class Failure:
    """Why one document has no vector; the others continue.

    Attributes:
        id: The document's id.
        code: Name of a google.rpc code, for example `INVALID_ARGUMENT`.
        message: The error: the limit, and what to do next.
        field: The field at fault, for example `text`; empty if there is none.
        index: Position of the document in its stream, from 0.
        columns: The document's columns, as far as they could be read.
    """

    id: str
    code: str
    message: str
    field: str = ""
    index: int = 0
    columns: Mapping[str, Scalar] = dataclasses.field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        error: ActvecError,
        document_id: str,
        index: int,
        columns: Mapping[str, Scalar] = NO_COLUMNS,
    ) -> "Failure":
        """Turn an error into the failure of one document."""
        return cls(document_id, error.code, str(error), error.field, index, dict(columns))

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON values; without `columns` if the document has none."""
        record = asdict(self)
        if not self.columns:
            del record["columns"]
        return record


Result = Vector | Failure


@dataclass(frozen=True, eq=False)
class VectorArray:
    """The vectors of documents, all in memory; it unpacks into `array, ids, failures`.

    Attributes:
        array: `[N, L, K, D]` float32: N documents, L layers (1 for their mean), K pools, width D.
        ids: Ids of these documents, in their order.
        failures: The documents without a vector.
        columns: Columns of the documents in `ids`, by name, in the same order; None where a
            document has no such column.
    """

    array: NDArray[np.float32]
    ids: list[str]
    failures: list[Failure]
    columns: dict[str, list[Scalar]]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.array, self.ids, self.failures))

    def _repr_html_(self) -> str:
        shape = " x ".join(map(str, self.array.shape))
        failed = [f"{one.id}: {one.message}" for one in self.failures[:_SHOWN_ROWS]]
        facts = {"ids": self.ids[:_SHOWN_ROWS], "columns": list(self.columns), "failures": failed}
        title = f"{len(self.ids):,} documents, {len(self.failures):,} failures: {shape} numbers"
        return record(title, facts)
