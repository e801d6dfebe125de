"""Pickles of strings: read whatever wrote them, and never run, whatever they are."""

import collections
import datetime
import io
import os
import pickle
import pickletools
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actvec.client import UnsupportedInput
from actvec.client.corpora.pickles import read_pickled_texts

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Evil:
    """Creates a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


class Command:
    def __reduce__(self):
        return os.system, ("exit 3",)


def written(tmp_path, data):
    path = tmp_path / "texts.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_every_protocol_of_a_list_of_strings_is_read(tmp_path_factory, protocol, texts):
    path = written(tmp_path_factory.mktemp("pickle"), pickle.dumps(texts, protocol))
    assert read_pickled_texts(path) == texts


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_long_lists_long_strings_and_strings_that_occur_again_are_read(tmp_path, protocol):
    again = "again"
    texts = [again, "x" * 70_000, again, *(f"text {number}" for number in range(2500)), again]
    assert read_pickled_texts(written(tmp_path, pickle.dumps(texts, protocol))) == texts


def test_a_pickle_in_plain_python_and_an_optimised_one_are_read(tmp_path):
    file = io.BytesIO()
    pickle._Pickler(file).dump(["a", "b"])
    assert read_pickled_texts(written(tmp_path, file.getvalue())) == ["a", "b"]
    optimised = pickletools.optimize(pickle.dumps(["a", "b"]))
    assert read_pickled_texts(written(tmp_path, optimised)) == ["a", "b"]


@pytest.mark.parametrize(
    "value",
    [
        "text",
        None,
        5,
        ("a", "b"),
        {"a"},
        {"a": "b"},
        ["a", None],
        ["a", b"bytes"],
        ["a", ["b"]],
        ["a", 5],
        [1.5],
        ["a", datetime.date(2020, 1, 1)],
        np.array(["a", "b"]),
        [np.str_("a")],
        collections.deque(["a"]),
        [print],
        ["\ud800"],
        subprocess.Popen,
    ],
    ids=repr,
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_anything_else_is_refused(tmp_path, value, protocol):
    with pytest.raises(UnsupportedInput, match="is not a pickled list of strings"):
        read_pickled_texts(written(tmp_path, pickle.dumps(value, protocol)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_would_run_something_does_not(tmp_path, protocol):
    trap = tmp_path / "trap"
    for value in ([Evil(trap)], Evil(trap), ["text", Evil(trap)], [Command()]):
        path = written(tmp_path, pickle.dumps(value, protocol))
        with pytest.raises(UnsupportedInput, match="something else, made by"):
            read_pickled_texts(path)
    assert not trap.exists()
    # The trap is a real one.
    pickle.loads(pickle.dumps(Evil(trap)))  # noqa: S301
    assert trap.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        pickle.dumps(["a", "b"])[:-1],
        pickle.dumps(["a", "b"])[:-5],
        b"cos\nsystem\n(S'exit 3'\ntR.",
        b"\x80\x05.",
        b"\x80\x05]e.",
        b"\x80\x05](\x8c\x01ae",
        b"\x80\x05\x8c\x01a\x8c\x01ba.",
        b"\x80\x05]h\x07a.",
        b"\x80\x05]]a.",
        b"\x80\x05]\x94h\x00a.",
        # A string that claims to have 4 GiB, 8 EiB; an entry of the memo beyond any memory.
        b"\x80\x05]X\xff\xff\xff\xffa.",
        b"\x80\x05]\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x80\x05]\x96\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x80\x05]X\x01\x00\x00\x00\xffa.",
    ],
    ids=repr,
)
def test_what_is_no_whole_pickle_is_refused(tmp_path, data):
    with pytest.raises(UnsupportedInput, match="is not a pickled list of strings"):
        read_pickled_texts(written(tmp_path, data))


def test_a_memo_number_beyond_all_memory_costs_none(tmp_path):
    assert read_pickled_texts(written(tmp_path, b"\x80\x05]r\xff\xff\xff\xff.")) == []


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_at_all_do_anything_but_end_in_a_list_or_an_error(tmp_path_factory, data):
    path = written(tmp_path_factory.mktemp("pickle"), b"\x80\x04]" + data)
    try:
        texts = read_pickled_texts(path)
    except UnsupportedInput:
        return
    assert all(type(text) is str for text in texts)


def test_a_file_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(UnsupportedInput, match="No such file"):
        read_pickled_texts(tmp_path / "absent.pkl")
