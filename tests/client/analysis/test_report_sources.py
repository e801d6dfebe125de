"""`actvec report` of documents, of vectors on disk, and of tables."""

import json

import numpy as np
import pytest

from actvec.client import Client, InvalidArgument
from actvec.client.analysis.csv_tables import write_tables
from actvec.client.analysis.paired import paired_vectors
from actvec.client.analysis.report import gather_tables, write_report
from actvec.client.cli import main
from actvec.client.samples import sample_corpus
from actvec.pooling import pools
from actvec.server.model.demo import WIDTH
from tests.client.analysis.conftest import content_of


def test_tables_alone_make_a_report(demo_server, tmp_path):
    with Client(demo_server.target) as client:
        pairs = paired_vectors(client, sample_corpus()[:3], mode="long")
    write_tables(tmp_path, pairs)
    for mode in ("short", "long"):
        names = tuple(pool.name for pool in pools(mode))
        material = gather_tables(tmp_path / f"vectors_{mode}_mode_raw.csv")
        assert material.pools == names
        assert material.kinds["raw"].shape == (3, 1, len(names), WIDTH)
        write_report(tmp_path / "report.html", material)
        assert "There are no centered vectors" in (tmp_path / "report.html").read_text()
    with pytest.raises(InvalidArgument, match="differ in documents, their order, or dimensions"):
        gather_tables(
            tmp_path / "vectors_short_mode_raw.csv", tmp_path / "vectors_long_mode_raw.csv"
        )


def table_of(path, rows=8):
    """A table of two documents."""
    random = np.random.default_rng(0)
    lines = [",".join(f"{value:.8f}" for value in random.normal(size=2)) for _ in range(rows)]
    path.write_text("\n".join(["a,b", *lines]) + "\n")
    return path


@pytest.mark.parametrize(("mode", "count"), [("short", 1), ("long", 4)])
def test_given_mode_is_that_of_tables(tmp_path, mode, count):
    for name in ("my_shortlist.csv", "my_longest.csv"):
        material = gather_tables(table_of(tmp_path / name), mode=mode)
        names = tuple(pool.name for pool in pools(mode))
        assert (material.pools, material.kinds["raw"].shape) == (names, (2, 1, count, 8 // count))


def test_table_names_tell_the_mode(tmp_path):
    for mode in ("short", "long"):
        for kind in ("raw", "centered"):
            table = table_of(tmp_path / f"vectors_{mode}_mode_{kind}.csv")
            assert len(gather_tables(table).pools) == len(pools(mode))
    for name in ("my_shortlist.csv", "vectors_short_mode_raw_2.csv", "table.csv"):
        with pytest.raises(InvalidArgument, match=rf"mode of .*{name} is unknown.*short or long"):
            gather_tables(table_of(tmp_path / name))


def test_program_passes_the_mode_on(tmp_path, capfd):
    tables = [table_of(tmp_path / "my_shortlist.csv"), table_of(tmp_path / "my_centered.csv")]
    out = tmp_path / "report.html"

    def run(*options):
        with pytest.raises(SystemExit) as ending:
            main(["report", "--csv", *map(str, tables), "--out", str(out), *options])
        return ending.value.code, *capfd.readouterr()

    code, output, errors = run()
    assert (code, output, out.exists()) == (2, "", False)
    assert "my_shortlist.csv is unknown" in errors
    assert run("--mode", "long")[0] == 0
    assert "2 documents, 4 x" in out.read_text()


def test_report_needs_no_server(demo_server, tmp_path, capfd):
    corpus = tmp_path / "corpus.jsonl"
    lines = [{"text": one.text[:200], **one.columns} for one in sample_corpus()]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder, whitening, out = (tmp_path / name for name in ("vectors", "w.safetensors", "r.html"))

    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main(["--target", demo_server.target, *map(str, arguments)])
        assert ending.value.code == 0, capfd.readouterr().err

    run("stream", corpus, "--mode", "long", "--out", folder, "--keep", "topic,length,text")
    run("whiten", folder, "--out", whitening)
    run("report", "--vectors", folder, "--out", out, "--pools", "last,exp_933")
    assert content_of(out)["pools"] == ["last", "exp_933"]
    run("report", "--vectors", folder, "--whiten", whitening, "--out", out, "--mode", "short")
    shown = content_of(out)
    assert list(shown["kinds"]) == ["raw", "centered", "whitened"]
    assert shown["pools"] == ["exp_933"]
    assert list(shown["columns"]) == ["topic", "length", "tokens"]
    assert shown["texts"][0].startswith("On a mild day")
    assert shown["facts"]["Centered by"] == "the average of these documents"
    assert shown["labels"]["length"]["auc"]
    assert not shown["labels"]["topic"]["auc"]


def test_report_shows_the_text_of_its_first_vector(demo_server, tmp_path):
    """Of two documents of one id the first fails."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": "a", "text": text}) + "\n" for text in (" ", "The second text."))
    )
    out = tmp_path / "report.html"
    with pytest.raises(SystemExit):
        main(["--target", demo_server.target, "report", str(corpus), "--out", str(out)])
    shown = content_of(out)
    assert shown["texts"] == ["The second text."]
    assert [word for word, _ in shown["shaded"]["words"]] == ["The", "second", "text."]


def test_program_names_files_and_omissions(demo_server, tmp_path, capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main(["--target", demo_server.target, "report", *map(str, arguments)])
        return ending.value.code, *capfd.readouterr()

    out = tmp_path / "report.html"
    code, output, _ = run("--text", "The tide comes back twice a day.", "--out", out)
    assert (code, output) == (0, f"{out}: 1 document\n")
    assert "A single document has no cosines" in out.read_text()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "good.txt").write_text("A good text.")
    (tmp_path / "texts" / "blank.txt").write_text(" ")
    code, _, errors = run(tmp_path / "texts", "--out", out, "--mode", "short")
    assert code == 1
    assert "'blank' is not in the report" in errors
    assert run("--out", out)[0] == 2
    assert run("--text", "a", "--samples")[0] == 2
