"""Reading documents: lazily, exactly, and never silently leaving one out."""

import gzip
import json

import pytest

from actvec.client import Document, Failure, UnsupportedInput
from actvec.client.documents import open_documents, read_text


def write_lines(path, *lines):
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_a_folder_gives_its_texts_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "notes.md").write_text("no document")
    source = open_documents(tmp_path)
    assert source.count == 2
    assert list(source) == [Document("a", "first"), Document("b", "second")]
    assert list(source) == list(source)


def test_a_text_is_read_exactly_save_for_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \xe2\x82\xac\n")
    assert read_text(path) == "one\r\ntwo \u20ac\n"


def test_files_that_cannot_be_read_are_failures_among_the_others(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    (tmp_path / "b.txt").mkdir()
    (tmp_path / "c.txt").write_text("fine")
    (tmp_path / "d.txt").symlink_to(tmp_path / "gone")
    a, b, c, d = open_documents(tmp_path)
    assert isinstance(a, Failure)
    assert (a.id, a.code, a.field) == ("a", "INVALID_ARGUMENT", "text")
    assert "not UTF-8" in a.message
    assert "byte 3" in a.message
    assert isinstance(b, Failure)
    assert "directory" in b.message
    assert c == Document("c", "fine")
    assert isinstance(d, Failure)
    assert "No such file" in d.message


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz", "CORPUS.JSONL"])
def test_json_lines_have_a_text_and_perhaps_an_id(tmp_path, name):
    path = write_lines(
        tmp_path / name,
        '{"id": "first", "text": "one"}',
        '{"text": "two", "url": "ignored"}',
        "",
        '{"id": 7, "text": "three"}',
        '{"id": null, "text": "four"}',
    )
    source = open_documents(path)
    assert source.count is None
    assert list(source) == [
        Document("first", "one"),
        Document("2", "two"),
        Document("7", "three"),
        Document("5", "four"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "not JSON"),
        ('{"text": "cut', "not JSON"),
        ('["text"]', "a JSON object is wanted, not an array"),
        ("null", "a JSON object is wanted, not null"),
        ('{"id": "x"}', "no `text`"),
        ('{"text": null}', "`text` is a string, not null"),
        ('{"text": 5}', "`text` is a string, not a number"),
        ('{"text": {"en": "x"}}', "`text` is a string, not an object"),
        ('{"id": true, "text": "x"}', "`id` is a string or an integer, not a boolean"),
        ('{"id": 1.5, "text": "x"}', "`id` is a string or an integer, not a number"),
        (b'{"text": "caf\xe9"}', "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": ' + "9" * 5000 + ', "text": "x"}', "digits"),
    ],
)
def test_a_bad_line_is_a_failure_and_the_next_is_read(tmp_path, line, reason):
    path = write_lines(tmp_path / "corpus.jsonl", line, '{"text": "fine"}')
    bad, good = open_documents(path)
    assert isinstance(bad, Failure)
    assert bad.code == "INVALID_ARGUMENT"
    assert reason in bad.message
    assert "line 1" in bad.message
    assert good == Document("2", "fine")


def test_a_failure_of_a_line_carries_its_id_where_there_is_one(tmp_path):
    (bad,) = open_documents(write_lines(tmp_path / "c.jsonl", '{"id": "doc-9", "text": 1}'))
    assert (bad.id, bad.field) == ("doc-9", "text")


def test_a_damaged_archive_gives_what_it_holds_and_says_where_it_ends(tmp_path):
    whole = write_lines(
        tmp_path / "c.jsonl.gz",
        *(json.dumps({"text": f"text {number} {hash(number * 7919)}"}) for number in range(9999)),
    )
    whole.write_bytes(whole.read_bytes()[:-2000])
    *documents, last = open_documents(whole)
    assert len(documents) > 100
    assert all(isinstance(document, Document) for document in documents)
    assert isinstance(last, Failure)
    assert last.code == "DATA_LOSS"
    assert f"line {len(documents) + 1}" in last.message


def test_what_is_no_archive_is_a_failure(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_text('{"text": "not compressed"}\n')
    (failure,) = open_documents(path)
    assert failure.code == "DATA_LOSS"


def test_lines_are_read_one_at_a_time(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", *['{"text": "x"}'] * 5)
    reader = iter(open_documents(path))
    assert next(reader) == Document("1", "x")
    reader.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corpus.csv", "no supported kind"),
        ("corpus.txt", "extract --file"),
        ("corpus.json", "no supported kind"),
    ],
)
def test_other_files_are_refused_listing_what_is_supported(tmp_path, name, message):
    (tmp_path / name).write_text("x")
    with pytest.raises(UnsupportedInput, match=message) as error:
        open_documents(tmp_path / name)
    assert "a folder of .txt files, or a .jsonl, .jsonl.gz or .parquet file" in str(error.value)


def test_nothing_there_and_nothing_in_it_are_told_apart(tmp_path):
    with pytest.raises(UnsupportedInput, match="No such file"):
        open_documents(tmp_path / "absent.jsonl")
    with pytest.raises(UnsupportedInput, match=r"holds no \.txt file"):
        open_documents(tmp_path)
