"""Reading documents: lazily, exactly, and never dropping one silently."""

import gzip
import json
import random
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actvec.client import Document, Failure, SourceBroken, UnsupportedInput
from actvec.client.documents import open_documents, read_text
from actvec.client.errors import MissingExtra


def write_lines(path, *lines):
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_folder_yields_texts_by_name(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "notes.md").write_text("no document")
    (tmp_path / "._a.txt").write_bytes(b"\x00\x05\x16\x07 of a Mac")
    source = open_documents(tmp_path)
    assert source.count == 2
    assert list(source) == [Document("a", "first"), Document("b", "second")]
    assert list(source) == list(source)


def test_texts_of_sub_folders_are_skipped_with_a_warning(tmp_path, caplog):
    ours = ("a.txt", "train/deep/b.txt", "test/c.TXT")
    for name in (*ours, ".git/d.txt", "out/e.json", "f/.g.txt", "h/.cache/i.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("A text.")
    assert list(open_documents(tmp_path)) == [Document("a", "A text.")]
    assert caplog.messages == [
        f"{tmp_path}: skipping the texts in its sub-folders ('test', 'train');"
        " .txt files of the folder itself: 1"
    ]
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UnsupportedInput, match=r"only in sub-folders, .*: 'test', 'train'"):
        open_documents(tmp_path)
    caplog.clear()
    assert list(open_documents(tmp_path / "test"))
    assert not caplog.messages


def test_search_for_skipped_texts_ends(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("actvec.client.documents.folder._MOST_FOLDERS", 3)
    (tmp_path / "a.txt").touch()
    (tmp_path / "b/c/d/e").mkdir(parents=True)
    (tmp_path / "b/c/d/e/f.txt").touch()
    open_documents(tmp_path)
    assert not caplog.messages
    (tmp_path / "b/c/d/f.txt").touch()
    open_documents(tmp_path)
    assert "'b'" in caplog.text


def test_many_skipped_folders_are_counted(tmp_path):
    for number in range(8):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/a.txt").touch()
    with pytest.raises(UnsupportedInput, match="'0', '1', '2', '3', '4' and 3 more"):
        open_documents(tmp_path)


def test_text_is_read_exactly(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \xe2\x82\xac\n")
    assert read_text(path) == "one\r\ntwo \u20ac\n"


def test_unreadable_files_are_failures(tmp_path):
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
def test_json_lines_have_optional_ids(tmp_path, name):
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
        ('["text"]', "must be a JSON object, not an array"),
        ("null", "must be a JSON object, not null"),
        ('{"id": "x"}', "no `text`"),
        ('{"text": null}', "`text` is null"),
        ('{"text": 5}', "`text` is a string or a list, not a number"),
        ('{"text": {"en": "x"}}', "`text` is a string or a list, not an object"),
        ('{"id": true, "text": "x"}', "`id` is a string or an integer, not a boolean"),
        ('{"id": 1.5, "text": "x"}', "`id` is a string or an integer, not a number"),
        (b'{"text": "caf\xe9"}', "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": ' + "9" * 5000 + ', "text": "x"}', "digits"),
    ],
)
def test_bad_line_is_a_failure(tmp_path, line, reason):
    path = write_lines(tmp_path / "corpus.jsonl", line, '{"text": "fine"}')
    bad, good = open_documents(path)
    assert isinstance(bad, Failure)
    assert bad.code == "INVALID_ARGUMENT"
    assert reason in bad.message
    assert "line 1" in bad.message
    assert good == Document("2", "fine")


def test_failure_of_a_line_carries_its_id(tmp_path):
    (bad,) = open_documents(write_lines(tmp_path / "c.jsonl", '{"id": "doc-9", "text": 1}'))
    assert (bad.id, bad.field) == ("doc-9", "text")


def read_to_the_break(source):
    """The documents of a source, and how it breaks."""
    read, documents = [], iter(source)
    with pytest.raises(SourceBroken) as broken:
        while True:
            read.append(next(documents))
    return read, str(broken.value)


def test_damaged_archive_breaks_after_its_content(tmp_path):
    whole = write_lines(
        tmp_path / "c.jsonl.gz",
        *(json.dumps({"text": f"text {number} {hash(number * 7919)}"}) for number in range(9999)),
    )
    whole.write_bytes(whole.read_bytes()[:-2000])
    read, message = read_to_the_break(open_documents(whole))
    assert len(read) > 100
    assert all(isinstance(document, Document) for document in read)
    assert f"{whole}, line {len(read) + 1}: from here on the file cannot be read" in message


def test_what_is_no_archive_breaks_at_once(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_text('{"text": "not compressed"}\n')
    with pytest.raises(SourceBroken, match=r"line 1: .*Not a gzipped file"):
        list(open_documents(path))


def test_break_counts_among_skipped_documents(tmp_path):
    path = write_lines(tmp_path / "c.jsonl.gz", *['{"text": "x"}'] * 5)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SourceBroken):
        list(open_documents(path).scan(skip=range(99)))


def test_lines_are_read_one_at_a_time(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", *['{"text": "x"}'] * 5)
    reader = iter(open_documents(path))
    assert next(reader) == Document("1", "x")
    reader.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corpus.pickle", "unsupported suffix"),
        ("corpus.txt", "a single text"),
    ],
)
def test_unsupported_files_are_refused_with_advice(tmp_path, name, message):
    (tmp_path / name).write_text("x")
    with pytest.raises(UnsupportedInput, match=message) as error:
        open_documents(tmp_path / name)
    assert "a folder of .txt files, JSON lines (.jsonl, .ndjson, .json; - for" in str(error.value)


def test_saved_datasets_are_refused_with_their_conversion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = datasets.Dataset.from_dict({"text": ["one", "two"]})
    dataset.save_to_disk("saved")
    datasets.DatasetDict({"train": dataset}).save_to_disk("splits")
    for path in (Path("saved"), Path("splits"), next(Path("saved").glob("*.arrow"))):
        with pytest.raises(UnsupportedInput) as error:
            open_documents(path)
        eval(str(error.value).partition("as Parquet: ")[2])  # noqa: S307 - our own advice
        assert [document.text for document in open_documents("corpus.parquet")] == ["one", "two"]


def test_missing_and_empty_sources_differ(tmp_path):
    with pytest.raises(UnsupportedInput, match="No such file"):
        open_documents(tmp_path / "absent.jsonl")
    with pytest.raises(UnsupportedInput, match=r"holds no \.txt file"):
        open_documents(tmp_path)


@pytest.fixture(params=["folder", "corpus.jsonl", "corpus.jsonl.gz", "corpus.parquet"])
def any_source(request, tmp_path):
    """The same ten documents in each kind of source; number 3 is bad."""
    path = tmp_path / request.param
    texts = [f"Text {number}." if number != 3 else None for number in range(10)]
    if request.param == "folder":
        path.mkdir()
        for number, text in enumerate(texts):
            (path / f"{number}.txt").write_bytes(text.encode() if text else b"\xff")
    elif request.param == "corpus.parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=4)
    else:
        write_lines(path, *(json.dumps({"text": text}) for text in texts))
    return path


def test_scan_skips_and_keeps_the_numbers(any_source):
    source = open_documents(any_source)
    everything = list(source.scan())
    assert [located.index for located in everything] == list(range(10))
    assert isinstance(everything[3].document, Failure)
    assert [located.document for located in everything] == list(source)
    assert list(source.scan({0, 3, 4, 9})) == [everything[index] for index in (1, 2, 5, 6, 7, 8)]
    assert list(source.scan(range(10))) == []


def test_scan_reports_its_progress(any_source):
    source = open_documents(any_source)
    ends = [located.end for located in source.scan()]
    assert ends == sorted(ends)
    assert ends[0] > 0
    assert ends[-1] == source.size


def test_identity_follows_the_content(any_source, tmp_path):
    identity = open_documents(any_source).identity()
    assert json.loads(json.dumps(identity)) == identity
    elsewhere = any_source.rename(tmp_path / f"moved-{any_source.name}")
    assert open_documents(elsewhere).identity() == identity
    part = elsewhere / "0.txt" if elsewhere.is_dir() else elsewhere
    part.write_bytes(part.read_bytes() + b"\n")
    changed = elsewhere if part.parent == elsewhere else part
    if changed.suffix == ".parquet":  # Parquet ends with its footer
        with pytest.raises(UnsupportedInput, match="cannot read"):
            open_documents(changed)
    else:
        assert open_documents(changed).identity() != identity


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_rows_have_optional_ids(tmp_path):
    path = write_parquet(
        tmp_path / "c.parquet", text=["one", "two"], id=["first", None], url=["", ""]
    )
    assert open_documents(path).count == 2
    assert list(open_documents(path)) == [Document("first", "one"), Document("2", "two")]
    path = write_parquet(tmp_path / "c.parquet", text=["one", "two"], id=[7, 8])
    assert [document.id for document in open_documents(path)] == ["7", "8"]
    path = write_parquet(tmp_path / "c.parquet", text=pa.array(["one", "one"]).dictionary_encode())
    assert list(open_documents(path)) == [Document("1", "one"), Document("2", "one")]


def test_row_without_a_text_is_a_failure(tmp_path):
    binary = pa.array([b"caf\xe9", b"fine", None])
    texts = pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())
    latin, fine, null = open_documents(write_parquet(tmp_path / "c.parquet", text=texts))
    assert isinstance(latin, Failure)
    assert "c.parquet, row 1: not UTF-8" in latin.message
    assert fine == Document("2", "fine")
    assert (null.id, null.code, null.field) == ("3", "INVALID_ARGUMENT", "text")
    assert "`text` is null" in null.message


def test_broken_parquet_yields_its_first_rows(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": ["word " * 50] * 200}), path, row_group_size=100)
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    read, message = read_to_the_break(open_documents(path))
    assert len(read) == 100
    assert "row 101: from here on the file cannot be read" in message
    assert read_to_the_break(open_documents(path).scan(range(101)))[0] == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"content": ["a"], "id": ["b"]},
            "or 'token_ids' or 'conversations'; there are: content, id",
        ),
        ({"text": [1]}, "column 'text' holds int64, not strings"),
        ({"text": ["a"], "id": [0.5]}, "column 'id' holds double, not strings or integers"),
    ],
)
def test_parquet_without_texts_is_refused(tmp_path, columns, message):
    with pytest.raises(UnsupportedInput, match=message):
        open_documents(write_parquet(tmp_path / "c.parquet", **columns))


def test_what_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "c.parquet").write_text("no")
    with pytest.raises(UnsupportedInput, match=r"cannot read .*c\.parquet"):
        open_documents(tmp_path / "c.parquet")


def test_a_row_group_is_read_in_pieces(tmp_path):
    path = tmp_path / "c.parquet"
    rng = random.Random(0)  # noqa: S311 - incompressible, not secret
    texts = pa.table({"text": [rng.randbytes(5_000).hex() for _ in range(4_000)]})
    pq.write_table(texts, path, write_batch_size=64)
    assert pq.ParquetFile(path).num_row_groups == 1
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in open_documents(path))
    assert path.stat().st_size > 39_000_000
    assert most < 12_000_000


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "c.parquet", text=["one"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'actvec\[data\]'"):
        open_documents(path)
