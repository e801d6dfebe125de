"""Views of the tensors of a safetensors file, without a copy.

`safetensors.deserialize` copies them while no other thread can run: a tenth of a second for a mean
of 100 MB, during which the server answers nobody. This module applies the same rules and copies
nothing.
"""

import json
from collections.abc import Mapping
from math import prod
from typing import Any

# Bits per number, by safetensors' name of its type.
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}

# Limit on the bytes of a header: JSON is parsed in one go.
_HEADER_BYTES = 4 << 20
_LENGTH_BYTES = 8
_LARGEST = 2**64


def deserialize(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return each tensor's name and its `dtype`, `shape` and `data`, as safetensors does.

    `data` is a read-only view of `content`.

    Raises:
        ValueError: it is not a safetensors file.

    Examples:
        >>> header = b'{"x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}'
        >>> [(name, tensor)] = deserialize(len(header).to_bytes(8, "little") + header + b"ab")
        >>> name, tensor["dtype"], tensor["shape"], bytes(tensor["data"])
        ('x', 'U8', [2], b'ab')
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if len(content) < _LENGTH_BYTES or begin > len(content):
        raise ValueError("it ends before its header does")
    if length > _HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, more than {_HEADER_BYTES}")
    entries = _header(content[_LENGTH_BYTES:begin])
    data = memoryview(content)[begin:]
    end = 0
    found = []
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        bits = prod(entry["shape"]) * _BITS[entry["dtype"]]
        if start != end or bits != 8 * (stop - start):
            raise ValueError(f"the offsets of {name!r} do not match its dtype and shape")
        end = stop
        tensor = {"dtype": entry["dtype"], "shape": entry["shape"], "data": data[start:stop]}
        found.append((name, tensor))
    if end != len(data):
        raise ValueError(f"its tensors need {end} bytes, and it has {len(data)}")
    return found


def metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that `deserialize` accepts."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    return header.get("__metadata__") or {}


def _header(raw: bytes) -> Mapping[str, dict[str, Any]]:
    """The entries of tensors, with fields of the right types."""
    try:
        header = json.loads(raw.decode("utf-8"))
        json.dumps(header, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not raw.startswith(b"{") or not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    if not _is_metadata(metadata):
        raise ValueError("its metadata do not map names to texts")
    for name, entry in header.items():
        if not (
            isinstance(entry, dict)
            and entry.keys() == {"dtype", "shape", "data_offsets"}
            and isinstance(entry["dtype"], str)
            and entry["dtype"] in _BITS
            and _are_sizes(entry["shape"])
            and _are_sizes(entry["data_offsets"])
            and len(entry["data_offsets"]) == 2
        ):
            raise ValueError(f"its header does not describe a tensor for {name!r}")
    return header


def _is_metadata(metadata: Any) -> bool:
    if metadata is None:
        return True
    return isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())


def _are_sizes(sizes: Any) -> bool:
    return isinstance(sizes, list) and all(
        type(size) is int and 0 <= size < _LARGEST for size in sizes
    )
