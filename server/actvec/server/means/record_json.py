"""A mean's record as JSON, in the form that every version of actvec has written.

It is protobuf's JSON of the contract's `CorpusMean`: names in camelCase, defaults absent, 64-bit
numbers as text. Decoding checks the type and range of every value, since anybody may have written
the file, and ignores unknown names, since a later version may have.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from actvec.server.means.record import MeanRecord, SkippedDocuments
from actvec.server.model.stamp import ModelStamp, Truncation

_T = TypeVar("_T")
_TRUNCATION = "TRUNCATION_"


@dataclass(frozen=True)
class _Form:
    """How to write one kind of value.

    Attributes:
        encode: Turns a value into JSON.
        decode: Turns JSON into a value, or raises ValueError.
    """

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def encode_record(record: MeanRecord) -> dict[str, Any]:
    """Encode a record as values for `json.dumps`."""
    return _encode(record, _RECORD)


def decode_record(values: Any) -> MeanRecord:
    """Decode a record from values of `json.loads`.

    Raises:
        ValueError: a value has another type, or is out of range.
    """
    return _decode(MeanRecord, _RECORD, values)


def canonical(record: MeanRecord) -> str:
    """The canonical text of a record."""
    return json.dumps(encode_record(record), sort_keys=True)


def _encode(value: Any, forms: Mapping[str, _Form]) -> dict[str, Any]:
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    defaults = {field.name: field.default for field in fields(value)}
    return {
        _camel(name): forms[name].encode(held[name])
        for name in held
        if held[name] != defaults[name]
    }


def _decode(kind: Callable[..., _T], forms: Mapping[str, _Form], values: Any) -> _T:
    if not isinstance(values, dict):
        raise ValueError(f"{values!r:.80} is no object")
    found = {}
    for name, form in forms.items():
        value = values.get(_camel(name))
        if value is None:
            continue
        try:
            found[name] = form.decode(value)
        except ValueError as error:
            raise ValueError(f"{_camel(name)}: {error}") from error
    return kind(**found)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is no text")
    value.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.80} is neither true nor false")
    return value


def _number(bits: int) -> Callable[[Any], int]:
    def decode(value: Any) -> int:
        if type(value) is str and value.isascii() and value.isdigit():
            value = int(value)
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise ValueError(f"{value!r:.80} is no number from 0 to 2 ** {bits} - 1")
        return value

    return decode


def _encode_time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(value: Any) -> datetime:
    time = datetime.fromisoformat(_text(value))
    if time.tzinfo is None:
        raise ValueError(f"{value!r:.80} has no time zone")
    return time


def _truncation(value: Any) -> Truncation | None:
    """None for one of a later version."""
    return Truncation.__members__.get(_text(value).removeprefix(_TRUNCATION))


def _many(form: _Form) -> _Form:
    def decode(values: Any) -> tuple[Any, ...]:
        if not isinstance(values, list):
            raise ValueError(f"{values!r:.80} is no list")
        return tuple(map(form.decode, values))

    return _Form(lambda values: [form.encode(value) for value in values], decode)


def _object(kind: Callable[..., Any], forms: Mapping[str, _Form]) -> _Form:
    return _Form(lambda value: _encode(value, forms), lambda values: _decode(kind, forms, values))


_TEXT = _Form(str, _text)
_FLAG = _Form(bool, _flag)
_UINT32 = _Form(int, _number(32))
_UINT64 = _Form(str, _number(64))

_STAMP = {
    "model": _TEXT,
    "revision": _TEXT,
    "tokenizer_sha256": _TEXT,
    "dtype": _TEXT,
    "layers": _many(_UINT32),
    "hook": _TEXT,
    "separate_layers": _FLAG,
}
_SKIPPED = {
    "reason": _TEXT,
    "documents": _UINT64,
    "first_message": _TEXT,
    "first_id": _TEXT,
}
_RECORD = {
    "id": _TEXT,
    "name": _TEXT,
    "sha256": _TEXT,
    "size_bytes": _UINT64,
    "model": _object(ModelStamp, _STAMP),
    "prepend_bos": _FLAG,
    "truncation": _Form(lambda value: _TRUNCATION + value.name, _truncation),
    "documents": _UINT64,
    "tokens": _UINT64,
    "skipped": _many(_object(SkippedDocuments, _SKIPPED)),
    "d_model": _UINT32,
    "max_tokens": _UINT32,
    "has_counts": _FLAG,
    "has_variance": _FLAG,
    "created_at": _Form(_encode_time, _time),
    "actvec_version": _TEXT,
    "corpus_sha256": _TEXT,
    "chat_template_sha256": _TEXT,
    "chat_template_kwargs": _TEXT,
    "add_generation_prompt": _FLAG,
    "chat_template_date": _TEXT,
}
