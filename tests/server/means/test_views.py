"""Why a file is not one of safetensors."""

import json

import pytest

from actvec.server.means.views import deserialize

ENTRY = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


def file_of(entries, data=b"ab"):
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_data_are_views_of_the_content():
    tensors = {"b": ENTRY, "a": ENTRY | {"shape": [1, 2], "data_offsets": [2, 4]}}
    found = deserialize(file_of(tensors | {"__metadata__": {"by": "us"}}, b"abcd"))
    assert [name for name, _ in found] == ["b", "a"]
    assert [bytes(tensor["data"]) for _, tensor in found] == [b"ab", b"cd"]
    assert [tensor["shape"] for _, tensor in found] == [[2], [1, 2]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x02\x00", "it ends before its header does"),
        (file_of({"a": ENTRY})[:40], "it ends before its header does"),
        (b"\xff" * 100, "it ends before its header does"),
        (file_of(b"[1]"), "its header is not a JSON object"),
        (file_of(b' {"a": 1}'), "its header is not a JSON object"),
        (file_of(b"[" * 100_000), "its header is nested too deeply"),
        (file_of({"__metadata__": {"a": 1}}), "its metadata do not map names to texts"),
        (file_of({"__metadata__": []}), "its metadata do not map names to texts"),
        (file_of({"a": ENTRY | {"more": 1}}), "does not describe a tensor for 'a'"),
        (file_of({"a": ENTRY | {"dtype": "X8"}}), "does not describe a tensor for 'a'"),
        (file_of({"a": ENTRY | {"shape": [-2]}}), "does not describe a tensor for 'a'"),
        (file_of({"a": ENTRY | {"shape": [True]}}), "does not describe a tensor for 'a'"),
        (file_of({"a": ENTRY | {"data_offsets": [0]}}), "does not describe a tensor for 'a'"),
        (file_of({"a": ENTRY | {"shape": [3]}}), "offsets of 'a' do not match its dtype and"),
        (file_of({"a": ENTRY | {"data_offsets": [1, 3]}}), "offsets of 'a' do not match"),
        (file_of({"a": ENTRY}, b"abc"), "its tensors need 2 bytes, and it has 3"),
        (file_of({"a": ENTRY}, b"a"), "its tensors need 2 bytes, and it has 1"),
    ],
)
def test_refusal_says_what_is_wrong(content, reason):
    with pytest.raises(ValueError, match=reason):
        deserialize(content)
