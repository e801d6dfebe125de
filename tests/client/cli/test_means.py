"""`actvec mean` and `actvec verify`: their output, files and exit codes."""

import csv
import gzip
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from actvec.client.analysis.verify import COLUMNS, DocumentIdentity, holds, worst_error
from actvec.client.samples import sample_corpus
from actvec.pooling import PoolIdentity


@pytest.fixture(scope="module")
def server(start_server):
    return start_server("--model=demo")


@pytest.fixture
def actvec(program, server, monkeypatch):
    """Run `actvec` against a server with known means."""
    monkeypatch.setenv("ACTVEC_TARGET", server.target)
    return program


@pytest.fixture
def corpus(tmp_path):
    """A file of the short samples and two lines that are not documents."""
    path = tmp_path / "corpus.jsonl"
    documents = [document for document in sample_corpus() if document.id.endswith("_short")]
    lines = [json.dumps({"id": document.id, "text": document.text}) for document in documents]
    path.write_text("\n".join([*lines, '{"id": "blank", "text": " "}', "rubbish"]))
    return path


def test_server_without_means_explains_how_to_make_one(actvec):
    code, output, errors = actvec("mean", "list")
    assert (code, output) == (0, "")
    assert "actvec mean compute" in errors
    code, _, errors = actvec("mean", "show", "latest")
    assert code == 2
    assert "no corpus mean 'latest'" in errors


def test_mean_is_made_moved_merged_and_removed(actvec, corpus, tmp_path):
    code, output, _ = actvec("mean", "compute", corpus, "--name", "first")
    assert code == 1  # two were skipped
    assert "10 of 84" in output
    assert "skipped    2 INVALID_ARGUMENT, first 'blank'" in output

    code, output, _ = actvec("mean", "show", "first", "--json")
    record = json.loads(output)
    assert (code, record["name"], record["documents"]) == (0, "first", 10)

    path = tmp_path / "out" / "mean.safetensors"
    code, output, _ = actvec("mean", "download", "latest", "--out", path)
    tensors = load_file(path)
    assert code == 0
    assert list(tensors["corpus_mean"].shape) == [record["d_model"], record["max_tokens"]]
    assert tensors["counts"][0] == 10

    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "a.txt").write_text("One more document.")
    assert actvec("mean", "compute", folder, "--name", "second", "--job", "other")[0] == 0
    code, output, _ = actvec("mean", "merge", "first", "second", "--name", "both")
    assert code == 0
    assert "11 of" in output

    code, output, _ = actvec("mean", "list")
    assert [line.split()[1] for line in output.splitlines()] == ["name", "both", "second", "first"]
    assert "removed" in actvec("mean", "delete", "both")[1]
    assert actvec("mean", "delete", "both")[0] == 2
    assert len(json.loads(actvec("mean", "list", "--json")[1])) == 2

    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(path.read_bytes()[:-1])
    code, _, errors = actvec("mean", "upload", foreign, "--name", "cut")
    assert code == 2
    assert f"{foreign}: " in errors
    assert "not a safetensors file" in errors


def test_broken_file_leaves_its_mean_unfinished(actvec, tmp_path):
    path = tmp_path / "corpus.jsonl.gz"
    lines = "".join(json.dumps({"text": f"Text {number}."}) + "\n" for number in range(20))
    path.write_bytes(gzip.compress(lines.encode())[:-8])
    actvec("mean", "compute", path, "--name", "broken")
    code, _, errors = actvec("mean", "compute", path, "--name", "broken")
    assert code == 2
    assert "line 21: from here on the file cannot be read" in errors
    assert "Stopped: 20 documents are durable; the same command continues after them" in errors
    assert "no corpus mean 'broken'" in actvec("mean", "show", "broken")[2]


def test_vectors_without_bos_take_means_without_bos(actvec, corpus, tmp_path):
    actvec("mean", "compute", corpus, "--name", "bare", "--no-bos")
    text = ("extract", "--text=The tide.", "--mode=short", "--center=bare", "--json")
    with_bos, without = tmp_path / "with", tmp_path / "without"
    assert "prepend_bos" in actvec(*text, "--out", with_bos)[2]
    record = json.loads(actvec(*text, "--out", without, "--no-bos")[1])
    assert (record["stamp"]["prepend_bos"], record["tokens"]) == (False, 3)
    stream = ("stream", corpus, "--mode=short", "--center=bare", "--no-bos", "--out", without)
    assert "10 vectors" in actvec(*stream)[1]


def test_finished_job_answers_with_its_mean(actvec, corpus):
    one = json.loads(actvec("mean", "compute", corpus, "--name", "again", "--json")[1])
    other = json.loads(actvec("mean", "compute", corpus, "--name", "again", "--json")[1])
    assert one == other


def test_verify_holds_for_samples_and_files(actvec, corpus, tmp_path):
    actvec("mean", "compute", corpus, "--name", "verified")
    table = tmp_path / "identity.csv"
    code, output, _ = actvec("verify", "--center", "verified", corpus, "--csv", table)
    assert code == 1  # two could not be checked
    assert "pooled mean holds: 10 documents" in output
    rows = list(csv.reader(table.open()))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 1 + 10 * 4
    assert all(float(row[3]) > 0.9999 for row in rows[1:])


def test_verify_finds_another_mean(actvec, corpus, tmp_path):
    actvec("mean", "compute", corpus, "--name", "columns")
    mean = tmp_path / "mean.safetensors"
    actvec("mean", "download", "columns", "--out", mean)
    pooled = load_file(mean)["corpus_mean"][:, 0].astype(float)
    (tmp_path / "lengths.csv").write_text("label,tokens\na,1\n")
    raw, centered = tmp_path / "raw.csv", tmp_path / "centered.csv"
    arguments = ["verify", "--mode", "short", "--columns", raw, centered]
    arguments += ["--mean", mean, "--lengths", tmp_path / "lengths.csv"]

    def write(path, values):
        path.write_text("\n".join(["a", *(f"{value:.8f}" for value in values)]) + "\n")

    write(raw, 2 * pooled)
    write(centered, pooled)
    code, output, _ = actvec(*arguments)
    assert (code, "holds: 1 documents" in output) == (0, True)
    write(centered, np.roll(pooled, 1))
    code, output, _ = actvec(*arguments, "--json")
    assert (code, json.loads(output)["holds"]) == (1, False)
    (tmp_path / "lengths.csv").write_text("b,1\n")
    code, _, errors = actvec(*arguments)
    assert code == 2
    assert "'a' has no line in the table of lengths" in errors


def test_verify_refuses_an_input_without_documents(actvec, corpus, tmp_path):
    actvec("mean", "compute", corpus, "--name", "nothing")
    empty, table = tmp_path / "empty.jsonl", tmp_path / "identity.csv"
    empty.write_text("\n")
    code, output, errors = actvec("verify", "--center", "nothing", empty, "--csv", table)
    assert (code, output) == (2, "")
    assert f"{empty} holds no document, so there is nothing to verify" in errors
    assert not table.exists()


def test_verify_without_a_document_does_not_hold(actvec, corpus, tmp_path):
    actvec("mean", "compute", corpus, "--name", "blank")
    (tmp_path / "blank.txt").write_text(" ")
    code, output, errors = actvec("verify", "--center", "blank", tmp_path)
    assert code == 1
    assert "holds" not in output
    assert "raw - centered = pooled mean was NOT checked, because no document has vectors" in output
    assert "'blank' was not checked" in errors
    code, output, _ = actvec("verify", "--center", "blank", tmp_path, "--json")
    assert (code, json.loads(output)["holds"], json.loads(output)["worst"]) == (1, False, None)


def test_identity_holds_within_the_tolerance():
    def document(*errors):
        pools = (PoolIdentity("last", 1.0, error, 1.0, 1.0) for error in errors)
        return DocumentIdentity("a", 1, tuple(pools))

    fine, coarse = document(1e-7, 1e-6), document(1e-7, 1e-2)
    assert (holds([fine, fine], 1e-4), worst_error([fine, fine])) == (True, 1e-6)
    assert (holds([fine, coarse], 1e-4), worst_error([fine, coarse])) == (False, 1e-2)
    assert (holds([], 1e-4), worst_error([])) == (False, None)
    for unknown in (document(np.nan, 1e-7), document(1e-7, np.nan)):
        assert np.isnan(unknown.relative_error)
        for documents in ([unknown, fine], [fine, unknown]):
            assert not holds(documents, 1e-4)
            assert np.isnan(worst_error(documents))


def test_verify_refuses_an_infinite_mean(actvec, tmp_path):
    mean = tmp_path / "mean.safetensors"
    save_file({"corpus_mean": np.array([[1, 1], [1, np.nan]], np.float32)}, mean)
    tables = [tmp_path / "raw.csv", tmp_path / "centered.csv"]
    for table in tables:
        table.write_text("a\n1\n1\n")
    (tmp_path / "lengths.csv").write_text("label,tokens\na,2\n")
    code, output, errors = actvec(
        *("verify", "--mode", "short", "--columns", *tables),
        *("--mean", mean, "--lengths", tmp_path / "lengths.csv"),
    )
    assert (code, output) == (2, "")
    assert "corpus_mean is not finite at distance 1 from the end" in errors


def test_log_shows_progress_and_time_left(actvec, corpus, monkeypatch):
    monkeypatch.setattr("actvec.client.cli.progress._LINE_EVERY", 0.0)
    _, _, errors = actvec("mean", "compute", corpus, "--name", "followed")
    shown = re.findall(
        r"^([\d.]+)%: (\d+) documents, .* tokens/s; \d:\d\d:\d\d left$", errors, re.M
    )
    assert shown[-1] == ("100.0", "12")
