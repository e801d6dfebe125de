"""Inputs that a program may pass instead of a `Document`."""

from collections.abc import Iterable, Mapping, Sized
from os import PathLike
from typing import Any

from actvec.client.records.columns import NO_COLUMNS, as_columns, is_missing, of_python
from actvec.client.records.content import Message
from actvec.client.records.vectors import Document, Failure

Streamable = Document | Failure | str | tuple[str, str] | Mapping[str, Any]
"""A document; a text; an id and a text; or a dict of the attributes of `Document`, such as a row of
a data set, whose other keys are ignored. Without them, `conversations` stands for `messages`. None
or NaN among them is a document that fails.
"""

_SOURCES = ("text", "messages", "token_ids")

CONVERSATIONS = "conversations"
"""ShareGPT's name of the messages of a chat."""


def check_several(documents: object) -> None:
    """Check that documents are an iterable of documents, and not one that yields something else.

    Iterating over a text gives its characters, over a dict its keys, and over a pandas data frame
    the names of its columns: each would count as a document.

    Raises:
        TypeError: it is a single document, or a data frame.
    """
    if isinstance(documents, PathLike):
        raise TypeError(
            f"a stream takes an iterable of documents, not {type(documents).__name__};"
            " open_documents reads those of a file or a folder"
        )
    if isinstance(documents, str | bytes | Document | Mapping):
        raise TypeError(
            "a stream takes an iterable of documents; extract takes a single one, and"
            " open_documents reads those of a file or a folder"
        )
    if hasattr(documents, "iterrows") or hasattr(documents, "iter_rows"):
        raise TypeError(
            "a stream takes an iterable of documents, and a data frame iterates over its columns;"
            " give a column such as frame['text'], or rows as dicts: frame.to_dict('records') of"
            " pandas, frame.iter_rows(named=True) of polars"
        )


def as_document(item: Streamable, number: int) -> Document | Failure:
    """Convert an item to a document, or to the reason why a dict or a missing value is not one.

    Args:
        item: The item.
        number: Becomes the id of a document without one.

    Raises:
        TypeError: the item is of another type.
    """
    if isinstance(item, Document | Failure):
        return item
    if isinstance(item, str):
        return Document(str(number), item)
    if isinstance(item, tuple) and len(item) == 2:
        return _pair(*item)
    if is_missing(item):
        return _missing(str(number))
    if not isinstance(item, Mapping):
        raise TypeError(
            f"document {number}: a document is a Document, a str, an (id, text) pair or a dict,"
            f" not {type(item).__name__}"
        )
    given = of_python(item.get("id"))
    document_id = str(number) if is_missing(given) else str(given)
    sources = {name: item[name] for name in _SOURCES if not is_missing(item.get(name))}
    if not sources and not is_missing(item.get(CONVERSATIONS)):
        sources = {"messages": item[CONVERSATIONS]}
    if not sources:
        found = ", ".join(map(str, item)) or "none"
        message = f"no text, messages, token_ids or {CONVERSATIONS}; there are: {found}"
        return Failure(document_id, "INVALID_ARGUMENT", message, "text")
    return make_document(document_id, sources, item.get("spans"), item.get("columns"))


def _pair(document_id: Any, text: Any) -> Document | Failure:
    if hasattr(document_id, "__index__") and not isinstance(document_id, bool):
        document_id = str(of_python(document_id))
    if isinstance(document_id, str) and is_missing(text):
        return _missing(document_id)
    return Document(document_id, text)


def _missing(document_id: str) -> Failure:
    return Failure(document_id, "INVALID_ARGUMENT", "the text is missing", "text")


def make_document(
    document_id: str, sources: Mapping[str, Any], spans: Any, columns: Any
) -> Document | Failure:
    """Make a document from foreign values, or report why they do not make one.

    Args:
        document_id: Its id.
        sources: Its text, messages or token ids, by attribute name.
        spans: Its spans; a missing value for none.
        columns: Its columns; a missing value for none.
    """
    has_spans = not is_missing(spans)
    try:
        kept = as_columns(NO_COLUMNS if is_missing(columns) else columns)
    except (TypeError, ValueError) as error:
        return Failure(document_id, "INVALID_ARGUMENT", str(error), "columns")
    try:
        return Document(document_id, **sources, spans=spans if has_spans else (), columns=kept)
    except (TypeError, ValueError) as error:
        field = "spans" if has_spans and "span" in str(error) else next(iter(sources), "")
        return Failure(document_id, "INVALID_ARGUMENT", str(error), field, columns=kept)


def size_of(item: object) -> int:
    """Estimate an item's characters of text; never fails.

    Columns count too; a token id counts as four characters.
    """
    if isinstance(item, tuple) and len(item) == 2:
        item = item[1]
    if isinstance(item, str):
        return len(item)
    if isinstance(item, Document):
        return len(item.content) + 4 * len(item.token_ids or ()) + _size_of_columns(item.columns)
    if isinstance(item, Mapping):
        text, ids = item.get("text"), item.get("token_ids")
        messages = item.get("messages")
        messages = item.get(CONVERSATIONS) if messages is None else messages
        size = len(text) if isinstance(text, str) else 0
        size += 4 * len(ids) if isinstance(ids, Sized) else 0
        size += _size_of_columns(item.get("columns"))
        # Neither a text nor an iterator, which would be spent.
        if isinstance(messages, Iterable) and isinstance(messages, Sized):
            size += sum(map(_size_of_message, messages))
        return size
    return 0


def _size_of_columns(columns: object) -> int:
    values = columns.values() if isinstance(columns, Mapping) else ()
    return sum(len(one) for one in values if isinstance(one, str))


def _size_of_message(message: object) -> int:
    content: object = None
    if isinstance(message, Mapping):
        content = message.get("value") if message.get("content") is None else message["content"]
    elif isinstance(message, Message):
        content = message.content
    elif isinstance(message, tuple | list) and message:
        content = message[-1]
    return len(content) if isinstance(content, str) else 0
