"""Only the column of texts matters; rows without a text are counted and named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actvec.client.corpora import DataFiles, HubDataset, Sample, WordLimits, fetch_corpus
from tests.client.corpora.fetches import read

TEXTS = ["one two three", "four five six"]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def fetch(source, folder, **options):
    return fetch_corpus(source, folder / "out.jsonl", words=WordLimits(), sample=Sample(**options))


def texts(folder):
    return [text for _, text in read(folder / "out.jsonl")]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"url": "u"}),
        ({"url": "u"}, {}),
        ({"id": 1}, {"id": "one"}),
        ({"id": "one"}, {"id": 1}),
        ({"meta": {"a": 1}}, {"meta": {"a": "x", "b": [1]}}),
    ],
)
@pytest.mark.parametrize("laid_out", [False, True])
def test_other_columns_do_not_matter(tmp_path, kind, first, second, laid_out):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / f"0.{kind}", [{"text": TEXTS[0]} | first])
    write(folder / f"1.{kind}", [{"text": TEXTS[1]} | second])
    source = HubDataset(str(folder)) if laid_out else DataFiles((f"{folder}/*",))
    fetched = fetch(source, tmp_path)
    assert texts(tmp_path) == TEXTS
    assert (fetched.counts.seen, fetched.counts.unreadable) == (2, 0)


def test_type_that_shows_late_does_not_matter(tmp_path):
    rows = [{"text": f"text {number}", "meta": None, "pad": "x" * 1000} for number in range(10_500)]
    write(tmp_path / "data.jsonl", [*rows, {"text": "the last", "meta": {"a": 1}, "pad": 5}])
    fetched = fetch(DataFiles((str(tmp_path / "data.jsonl"),)), tmp_path)
    assert fetched.documents == len(rows) + 1


def test_bad_rows_are_counted_and_named(tmp_path, program):
    lines = [
        '{"text": "one two"}',
        "{no json",
        '{"body": "three"}',
        '{"text": 5}',
        '{"text": "half a pair \\ud800"}',
        '"a string"',
        '{"text": "six seven"}',
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    options = ["--files", tmp_path / "data.jsonl", "--save-local", tmp_path / "out.jsonl"]
    code, output, errors = program("corpus", "fetch", *options)
    assert code == 0
    assert "7 texts seen: 2 accepted, 5 unreadable, 0 empty" in output
    assert "00000-0000001: " in errors
    assert "line 2: not JSON" in errors
    assert "there are: body" in errors
    assert "00000-0000004: " in errors
    assert read(tmp_path / "out.jsonl") == [
        ("00000-0000000", "one two"),
        ("00000-0000006", "six seven"),
    ]
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert next(iter(manifest["failures"])) == "00000-0000001"
    assert program("corpus", "fetch", *options)[2] == errors


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("column", ["text", "mine"])
def test_chat_is_no_text(tmp_path, kind, column):
    chat = [{"role": "user", "content": "one two"}]
    others = {"messages": chat, "token_ids": [5]} if column == "text" else {}
    write(tmp_path / f"0.{kind}", [{column: "one two", **others}, {column: None, **others}])
    write(tmp_path / f"1.{kind}", [{column: chat}])
    fetched = fetch(DataFiles((f"{tmp_path}/?.{kind}",), column), tmp_path)
    assert texts(tmp_path) == ["one two"]
    assert fetched.counts.unreadable == 2
    # Not for the other columns, which are not read.
    assert f"`{column}` is null" in fetched.failures["00000-0000001"]
    assert f"`{column}` holds messages, not a text" in fetched.failures["00001-0000000"]


def test_only_the_first_bad_rows_are_named(tmp_path, program):
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n' + "bad\n" * 25)
    options = ["--files", tmp_path / "data.jsonl", "--save-local", tmp_path / "out.jsonl"]
    _, output, errors = program("corpus", "fetch", *options)
    assert "25 unreadable" in output
    assert errors.count("not JSON") == 10
    assert "and 15 more that cannot be read" in errors


def test_escapes_stay_off_the_terminal(tmp_path, program):
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n{"\\u001b]0;owned\\u0007": 1}\n')
    _, _, errors = program(
        *("corpus", "fetch", "--files", tmp_path / "data.jsonl"),
        *("--save-local", tmp_path / "out.jsonl"),
    )
    assert "\x1b" not in errors
    assert "owned" in errors


@pytest.mark.parametrize("name", ["a[1].jsonl", "what?.jsonl", "gzip::x.jsonl", "a*.jsonl"])
def test_name_that_exists_is_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, [{"text": TEXTS[0]}])
    write(tmp_path / "a1.jsonl", [{"text": TEXTS[1]}])
    fetch(DataFiles((name,)), tmp_path)
    assert texts(tmp_path) == TEXTS[:1]


def test_wildcards_are_tried_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        write(tmp_path / f"a{number}.jsonl", [{"text": f"text {number}"}])
    fetch(DataFiles(("a[13].jsonl",)), tmp_path)
    assert texts(tmp_path) == ["text 1", "text 3"]


def test_kinds_of_files_may_be_mixed(tmp_path):
    write(tmp_path / "0.jsonl", [{"text": TEXTS[0]}])
    write(tmp_path / "1.parquet", [{"text": TEXTS[1]}])
    fetch(DataFiles((f"{tmp_path}/0.jsonl", f"{tmp_path}/1.parquet")), tmp_path)
    assert texts(tmp_path) == TEXTS


def test_datasets_of_other_formats_are_read(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "0.csv").write_text("text,n\none two three,1\n,2\nfour five six,3\n")
    fetched = fetch(HubDataset(str(folder)), tmp_path, documents=2)
    assert sorted(texts(tmp_path)) == sorted(TEXTS)
    assert fetched.counts.unreadable == 1


def test_dataset_of_one_array_is_read(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "0.json").write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    fetch(HubDataset(str(folder)), tmp_path)
    assert texts(tmp_path) == TEXTS
