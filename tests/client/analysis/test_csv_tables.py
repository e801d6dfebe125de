"""Tables of vectors as CSV: the layout, what comes back, and `actvec csv`."""

import csv
import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal

from actvec.client import Client, InvalidArgument, UnsupportedInput
from actvec.client.analysis.csv_cells import csv_line
from actvec.client.analysis.csv_tables import read_table, write_table
from actvec.client.analysis.verify import DocumentIdentity, read_lengths, to_csv
from actvec.client.errors import DataLoss
from actvec.client.samples import sample_corpus
from actvec.pooling import PoolIdentity

TEXTS = {"a": "A lamp in the window.", "b": "The river rises in spring, and falls."}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def actvec(program, server_with_mean, monkeypatch):
    monkeypatch.setenv("ACTVEC_TARGET", server_with_mean.target)
    return program


def columns(path):
    """A table as another program reads it."""
    header, *rows = csv.reader(path.open(newline=""))
    return header, np.array(rows, dtype=np.float64).T


def test_documents_are_columns(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, ["one", "two"], [np.array([1, 2, -3.5]), np.array([0.25, 5e-9, 1e5])])
    assert path.read_text() == (
        "one,two\n1.00000000,0.25000000\n2.00000000,0.00000001\n-3.50000000,100000.00000000\n"
    )


@pytest.mark.parametrize("label", ['a "quoted" one', "with, comma", "two\nlines", "#1", "é", "-1"])
def test_a_label_may_be_anything(tmp_path, label):
    path = tmp_path / "table.csv"
    write_table(path, [label, "other"], [np.ones(3), np.zeros(3)])
    assert read_table(path).labels == (label, "other")
    assert columns(path)[0] == [label, "other"]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, unique=True))
@example(["a\rb", "c"])
@example(["\ufefffirst", "second"])
@example(["=1", "'=1", "''=1", "'", "-1", "'-1"])
@example(["\n=1", " =1 ", ""])
def test_labels_come_back_as_they_were(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_table(path, labels, [np.ones(2)] * len(labels))
    assert read_table(path).labels == tuple(labels)
    lengths = path.with_name("lengths.csv")
    lines = [csv_line(label, number) for number, label in enumerate(labels)]
    lengths.write_text("label,tokens\n" + "".join(lines), newline="")
    assert read_lengths(lengths) == {label: number for number, label in enumerate(labels)}


@pytest.mark.parametrize(
    "label", ['=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]
)
def test_label_is_no_formula(tmp_path, label):
    path = tmp_path / "table.csv"
    write_table(path, [label, "other"], [np.ones(2), np.ones(2)])
    assert columns(path)[0] == [f"'{label}", "other"]
    identity = PoolIdentity("last", 1.0, 0.0, 1.0, 1.0)
    table = to_csv([DocumentIdentity(label, 5, (identity,))]).decode()
    assert next(csv.reader(table.splitlines(keepends=True)[1:]))[0] == f"'{label}"


def test_carriage_return_is_quoted(tmp_path):
    """As Python's own writer does from 3.11.9 and 3.12.3 on only."""
    path = tmp_path / "table.csv"
    write_table(path, ["a\rb", "c"], [np.ones(1), np.ones(1)])
    assert path.read_bytes().startswith(b'"a\rb",c\n')


def test_byte_order_mark_is_no_label(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\ufeffa,b\n1,2\n")
    assert read_table(path).labels == ("a", "b")


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(-65504, 65504, width=32),
    )
)
# Its eight decimals are nearest to its neighbor among the float32.
@example(np.array([[0.091796875]], np.float32))
def test_numbers_come_back_almost_whole(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_table(path, [str(number) for number in range(len(values))], list(values))
    read = read_table(path).values
    large = np.abs(values) >= 1 / 8
    assert_array_equal(read[large], values[large])
    assert np.abs(read.astype(float) - values.astype(float)).max() <= 7.5e-9


@pytest.mark.parametrize(
    ("labels", "vectors"),
    [
        ([], []),
        (["a"], [np.ones(2), np.ones(2)]),
        (["a", "a"], [np.ones(2), np.ones(2)]),
        (["a", "b"], [np.ones(2), np.ones(3)]),
    ],
)
def test_what_is_no_table_is_not_written(tmp_path, labels, vectors):
    with pytest.raises(InvalidArgument):
        write_table(tmp_path / "table.csv", labels, vectors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no header"),
        ("a,b\n", "no numbers"),
        ("a,b\n\n", "no numbers"),
        ("a,b\n1,2,3\n", "2 labels above rows of 3"),
        ("a,b\n1,2\n3\n", "columns"),
        ("a,b\n1,x\n", "not a table"),
        ("a,a\n1,2\n", "twice"),
        ("a,b\n1,nan\n", "finite"),
        (b"\xff\xfe\n1\n", "not a table"),
    ],
)
def test_what_is_no_table_is_not_read(tmp_path, content, reason):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnsupportedInput, match=reason):
        read_table(path)


def test_a_table_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(UnsupportedInput, match="No such file"):
        read_table(tmp_path / "table.csv")


def test_csv_writes_both_modes_raw_and_centered(actvec, server_with_mean, folder, tmp_path):
    out = tmp_path / "out"
    code, output, errors = actvec("csv", folder, "--center", "latest", "--out", out)
    assert (code, errors.startswith("Centered by samples: 20 documents")) == (0, True)
    with Client(server_with_mean.target) as client:
        mean = client.get_mean("latest")
        for mode in ("short", "long"):
            for kind, center in (("raw", None), ("centered", mean.id)):
                path = out / f"vectors_{mode}_mode_{kind}.csv"
                assert str(path) in output
                header, values = columns(path)
                assert header == ["a", "b"]
                for text, column in zip(TEXTS.values(), values, strict=True):
                    vector = client.extract(text, mode=mode, center=center)
                    np.testing.assert_allclose(column, vector.values, atol=1e-8, rtol=0)
    assert mean.id in output


def test_csv_says_what_the_tables_depend_on(actvec, folder, tmp_path):
    actvec("csv", folder, "--center", "samples", "--out", tmp_path)
    metadata = json.loads((tmp_path / "vectors_metadata.json").read_text())
    assert len(metadata["tables"]) == 4
    for name, table in metadata["tables"].items():
        content = (tmp_path / name).read_bytes()
        assert table["sha256"] == hashlib.sha256(content).hexdigest()
        assert table["dimensions"] == content.count(b"\n") - 1
        assert table["stamp"]["mode"] in name
        assert bool(table["stamp"]["corpus_mean_id"]) == ("centered" in name)
    short = metadata["tables"]["vectors_short_mode_raw.csv"]["stamp"]
    assert [pool["name"] for pool in short["pools"]] == ["exp_933"]
    assert [document["id"] for document in metadata["documents"]] == ["a", "b"]
    assert all(document["smallest_count"] == 20 for document in metadata["documents"])


def test_the_tables_pass_verify(actvec, folder, tmp_path):
    actvec("csv", folder, "--center", "samples", "--out", tmp_path)
    actvec("mean", "download", "samples", "--out", tmp_path / "mean.safetensors")
    for mode in ("short", "long"):
        tables = [tmp_path / f"vectors_{mode}_mode_{kind}.csv" for kind in ("raw", "centered")]
        code, output, _ = actvec(
            *("verify", "--mode", mode, "--columns", *tables),
            *("--mean", tmp_path / "mean.safetensors"),
            *("--lengths", tmp_path / "vectors_lengths.csv"),
        )
        assert (code, "holds: 2 documents" in output) == (0, True)


def test_table_cut_at_a_line_is_damage(actvec, folder, tmp_path):
    """It reads as vectors of a smaller width, which agree with each other."""
    actvec("csv", folder, "--out", tmp_path / "out")
    table = tmp_path / "out" / "vectors_short_mode_raw.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataLoss, match=r"raw\.csv has 127 rows, not 128: it was altered"):
        read_table(table)


def test_raw_tables_replace_centered_ones(actvec, folder, tmp_path):
    actvec("csv", folder, "--center", "samples", "--out", tmp_path)
    code, output, _ = actvec("csv", folder, "--out", tmp_path)
    assert code == 0
    assert "raw only; --center adds centered tables" in output
    assert sorted(path.name for path in tmp_path.glob("vectors_*_mode_*.csv")) == [
        "vectors_long_mode_raw.csv",
        "vectors_short_mode_raw.csv",
    ]


def test_csv_of_the_sample_corpus(actvec, tmp_path):
    code, output, _ = actvec("csv", "--samples", "--out", tmp_path, "--json")
    assert (code, json.loads(output)["documents"]) == (0, 20)
    header, _ = columns(tmp_path / "vectors_long_mode_raw.csv")
    assert header == [document.id for document in sample_corpus()]


def test_failures_are_listed_and_ids_numbered(actvec, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    records = [("a", "One."), ("b", "Two."), ("a", "Three."), ("blank", " ")]
    lines = [json.dumps({"id": name, "text": text}) for name, text in records]
    corpus.write_text("\n".join([*lines, "rubbish"]))
    code, _, errors = actvec("csv", corpus, "--out", tmp_path / "out")
    assert code == 1
    listed = tmp_path / "out" / "vectors_errors.jsonl"
    assert str(listed) in errors
    assert columns(tmp_path / "out" / "vectors_short_mode_raw.csv")[0] == ["a", "b", "a~2"]
    failures = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(one["index"], one["id"]) for one in failures] == [(3, "blank"), (4, "5")]
    # Where nothing fails any more, there is no list.
    corpus.write_text("\n".join(lines[:2]))
    assert actvec("csv", corpus, "--out", tmp_path / "out")[0] == 0
    assert not listed.exists()


def test_job_in_the_folder_stays(actvec, tmp_path):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    corpus.write_text("\n".join([json.dumps({"text": TEXTS["a"]}), "rubbish", '{"text": " "}']))
    job = ("stream", corpus, "--mode", "short", "--out", out, "--format", "shards", "--resume")
    assert actvec(*job)[0] == 1
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert out / "errors.jsonl" in before
    assert actvec("csv", corpus, "--out", out)[0] == 1
    assert {path: path.read_bytes() for path in before} == before
    code, output, _ = actvec(*job)
    assert (code, "(3 documents were there already)" in output) == (1, True)


def test_documents_over_the_limit_are_skipped(actvec, folder, tmp_path):
    code, _, errors = actvec("csv", folder, "--out", tmp_path / "out", "--limit", 1)
    assert code == 0
    assert "and skipped 1" in errors
    assert columns(tmp_path / "out" / "vectors_short_mode_raw.csv")[0] == ["a"]


def test_failures_alone_make_no_table(actvec, tmp_path):
    (tmp_path / "blank.txt").write_text(" ")
    code, output, errors = actvec("csv", tmp_path, "--out", tmp_path / "out")
    assert (code, output) == (1, "")
    assert "no table was written" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vectors_errors.jsonl"]


def test_missing_mean_leaves_nothing(actvec, folder, tmp_path):
    code, output, errors = actvec("csv", folder, "--center", "nobodys", "--out", tmp_path / "out")
    assert (code, output) == (2, "")
    assert errors.startswith("Error: no corpus mean 'nobodys'")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [[], ["texts", "--samples"], ["absent"]])
def test_csv_wants_one_input(actvec, tmp_path, arguments, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, errors = actvec("csv", *arguments, "--out", "out")
    assert (code, output) == (2, "")
    assert "Error" in errors


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"label,tokens\na,3\n\n'=b,4\n", {"a": 3, "=b": 4}),
        (b"a,3\ncaf\xe9,4\n", "not a table of lengths"),
        (b"a,3\nb,x\n", "line 2: is not label,tokens"),
    ],
    ids=["blank", "latin-1", "word"],
)
def test_lengths_are_read_or_refused(tmp_path, content, expected):
    path = tmp_path / "lengths.csv"
    path.write_bytes(content)
    if isinstance(expected, dict):
        assert read_lengths(path) == expected
        return
    with pytest.raises(InvalidArgument, match=expected):
        read_lengths(path)
