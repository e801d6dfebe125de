"""`--column`, `--id-column` and `--keep`, wherever INPUT is read."""

import csv
import json
from importlib.resources import files

import pytest

READERS = {
    "stream": ("--mode", "short", "--out", "out"),
    "csv": ("--out", "out"),
    "similarity": (),
    "report": ("--out", "report.html"),
    "verify": (),
    "mean compute": ("--name", "columns"),
    "corpus inspect": (),
    "plan": ("--gpu", "h100", "--context", "2048", "--tokenizer", "tokenizer.json"),
}
ROWS = [
    {"body": f"In {1900 + n} the orchard was sold.", "uid": "ab"[n % 2], "label": n}
    for n in range(3)
]


@pytest.fixture
def actvec(actvec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = files("actvec.server").joinpath("model", "demo", "tokenizer.json")
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return actvec


@pytest.mark.parametrize("verb", READERS)
def test_wrong_columns_stop_every_reader(actvec, verb):
    code, output, errors = actvec(*verb.split(), "corpus.jsonl", *READERS[verb])
    assert (code, output) == (2, "")
    assert "or 'token_ids' or 'conversations'; there are: body, uid, label" in errors
    named = ("--column", "body", "--id-column", "nr")
    code, output, errors = actvec(*verb.split(), "corpus.jsonl", *READERS[verb], *named)
    assert (code, output) == (2, "")
    assert "no column 'nr'; there are: body, uid, label" in errors


NAMED = ("corpus.jsonl", "--column", "body", "--id-column", "uid")


def test_repeated_ids_are_reported(actvec):
    code, _, errors = actvec("stream", *NAMED, "--mode", "short", "--out", "out")
    assert code == 0
    assert "1 document has the id of another one, for example 'a'" in errors
    code, output, _ = actvec("corpus", "inspect", *NAMED, "--json")
    assert (code, json.loads(output)["repeated_ids"]) == (0, 1)


def test_tables_have_a_column_per_document(actvec, tmp_path):
    code, _, errors = actvec("csv", *NAMED, "--out", "out", "--keep", "label")
    assert (code, errors) == (0, "")
    with (tmp_path / "out" / "vectors_short_mode_raw.csv").open() as table:
        assert next(csv.reader(table)) == ["a", "b", "a~2"]
    metadata = json.loads((tmp_path / "out" / "vectors_metadata.json").read_text())
    found = [(one["id"], one["columns"]) for one in metadata["documents"]]
    assert found == [("a", {"label": 0}), ("b", {"label": 1}), ("a~2", {"label": 2})]


@pytest.mark.parametrize(
    "arguments",
    [
        ("similarity", "one text", "another"),
        ("csv", "--samples", "--out", "out"),
        ("report", "--text", "a text"),
        ("report", "--csv", "raw.csv", "centered.csv"),
        ("verify", "--columns", "raw.csv", "centered.csv", "--mean", "m", "--lengths", "l"),
    ],
)
def test_columns_need_an_input(actvec, arguments):
    code, output, errors = actvec(*arguments, "--column", "body")
    assert (code, output) == (2, "")
    assert "--column, --id-column and --keep are for an INPUT" in errors
