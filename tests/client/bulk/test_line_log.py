"""Logs of lines: a line is whole or absent."""

import errno
import json
import os

import pytest

from actvec.client.bulk.line_log import LineLog, read_lines
from tests.disk import file_limit


def records(path):
    return [(number, json.loads(line)) for number, line in read_lines(path)]


def test_full_disk_leaves_no_part_of_a_line(tmp_path):
    path = tmp_path / "log.jsonl"
    log = LineLog(path)
    log.add({"n": 1})
    size = path.stat().st_size
    with file_limit(size + 5), pytest.raises(OSError, match=str(path)) as error:
        log.add({"n": 2})
    assert error.value.errno == errno.EFBIG
    assert path.stat().st_size == size
    log.add({"n": 3})
    log.close()
    assert records(path) == [(1, {"n": 1}), (2, {"n": 3})]


def test_commit_that_fails_names_the_file(tmp_path, monkeypatch):
    log = LineLog(tmp_path / "log.jsonl")
    log.add({"n": 1})

    def fail(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=str(log.path)):
        log.commit()
    log.close()


def test_line_is_in_the_file_at_once(tmp_path):
    log = LineLog(tmp_path / "log.jsonl")
    for number in (1, 2):
        log.add({"n": number})
        assert records(log.path)[-1] == (number, {"n": number})
    log.close()


def test_mending_removes_a_part_of_a_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n"')
    assert records(path) == [(1, {"n": 1})]
    log = LineLog(path)
    log.mend()
    log.add({"n": 2})
    log.close()
    assert records(path) == [(1, {"n": 1}), (2, {"n": 2})]
