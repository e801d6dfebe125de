"""`--layers`, `--separate`, `--hook` and `--pools`, wherever the program makes vectors."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from actvec.client import Client, Document
from actvec.client.cli.settings import Layers

TEXT = "The lighthouse stood dark for eleven years."


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [
        {"id": "a", "text": TEXT, "spans": [["subject", 0, 14]]},
        {"id": "b", "text": "So it did.", "spans": [{"name": "subject", "start": 3, "end": 5}]},
        {"id": "c", "token_ids": [5, 8, 13], "spans": [["subject", 1, 2]]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def vectors_in(folder):
    """The distinctive part of the file's name, and its metadata."""
    found = {}
    for path in folder.glob("*_metadata.json"):
        name = path.name.removeprefix("activation_vector_").removesuffix("_metadata.json")
        found[name] = json.loads(path.read_text())
    return found


def test_extract_takes_layers_and_pools(actvec, tmp_path, demo_server):
    options = ("--layers", "0-2,5", "--separate", "--pools", "mean,exp:0.1", "--hook", "resid_pre")
    code, _, errors = actvec("extract", "--text", TEXT, *options, "--out", tmp_path)
    assert (code, errors) == (0, "")
    ((name, metadata),) = vectors_in(tmp_path).items()
    assert name.startswith("custom-")
    assert metadata["shape"] == [4, 2, 128]
    stamp = metadata["stamp"]
    assert (stamp["layers"], stamp["hook"], stamp["mode"]) == ([0, 1, 2, 5], "resid_pre", None)
    with Client(demo_server.target) as client:
        vector = client.extract(
            TEXT, layers=[0, 1, 2, 5], separate=True, pools=["mean", "exp:0.1"], hook="resid_pre"
        )
    saved = load_file(tmp_path / metadata["vector_file"])["vec"]
    assert_array_equal(saved, vector.values.astype(np.float16))


def test_another_layer_hook_or_mean_replaces_nothing(program, tmp_path, server_with_mean):
    target = ("--target", server_with_mean.target)

    def extract(*options):
        return program("extract", "--text", TEXT, "--out", tmp_path, *target, *options)[0]

    assert extract("--mode", "short") == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for options in (("--layers", "2"), ("--hook", "resid_pre"), ("--center", "latest")):
        assert extract("--mode", "short", *options) == 0
    labels = [name.rsplit("_", 1)[0] for name in vectors_in(tmp_path)]
    assert len(set(labels)) == 4
    assert all(label == "short" or label.startswith("short-") for label in labels)
    # Settings that the name does not show are refused.
    assert extract("--mode", "short", "--truncation", "end") == 2
    assert {path: path.read_bytes() for path in before} == before
    # The same settings again give the same vector.
    assert extract("--mode", "short") == 0


@pytest.mark.parametrize("layout", ["files", "shards", "parquet"])
def test_stream_writes_spans_of_all_layers(actvec, tmp_path, corpus, layout, demo_server):
    out = tmp_path / "out"
    options = ("--layers", "all", "--separate", "--pools", "span:subject,last")
    code, _, errors = actvec("stream", corpus, *options, "--format", layout, "--out", out)
    assert code == 0, errors
    with Client(demo_server.target) as client:
        document = Document("a", TEXT, spans=[("subject", 0, 14)])
        pools = ["span:subject", "last"]
        vector = client.extract(document, layers=range(7), separate=True, pools=pools)
    expected = vector.values.astype(np.float16)
    if layout == "files":
        found = {one["id"]: one for one in vectors_in(out).values()}
        values = load_file(out / found["a"]["vector_file"])["vec"]
        shape, sources = found["a"]["shape"], {name: one["source"] for name, one in found.items()}
    elif layout == "shards":
        lines = (out / "vectors-00000.jsonl").read_text().splitlines()
        rows = {row["id"]: row for row in map(json.loads, lines)}
        values = load_file(out / "vectors-00000.safetensors")["vec"][rows["a"]["row"]]
        shape, sources = rows["a"]["shape"], {name: row["source"] for name, row in rows.items()}
    else:
        table = pq.read_table(out / "vectors.parquet")
        frame = table.to_pandas().set_index("id")
        values, sources = frame["vector"]["a"], dict(frame["source"])
        shape = json.loads(table.schema.metadata[b"actvec.shape"])
    assert shape == [7, 2, 128]
    assert_array_equal(values, expected)
    assert sources == {"a": "text", "b": "text", "c": "token_ids"}


def test_a_job_resumes_with_the_same_choices(actvec, tmp_path, corpus):
    command = ("stream", corpus, "--out", tmp_path / "out", "--format", "shards", "--resume")
    options = ("--pools", "mean,last", "--layers", "1,2")
    assert actvec(*command, *options)[0] == 0
    assert actvec(*command, *options)[0] == 0
    code, _, errors = actvec(*command, "--pools", "mean,last", "--layers", "1,3")
    assert code == 2
    assert "layers is [1, 2] there and [1, 3] here" in errors


def test_means_of_separate_layers_center_and_verify(program, tmp_path, corpus, start_server):
    target = ("--target", start_server("--model=demo").target)
    made = program(
        "mean", "compute", corpus, "--name", "m", "--layers", "1-4", "--separate", *target
    )
    assert made[0] == 0
    assert "1, 2, 3, 4 apart (resid_post)" in made[1]
    options = ("--layers", "2,4", "--center", "m", "--pools", "mean,position:-1", *target)
    for more in ((), ("--separate",)):
        code, output, errors = program("verify", corpus, *options, *more)
        assert code == 0, errors
        assert "holds: 3 documents" in output
        assert ("layer 4 position:-1" in output) == bool(more)
    code, output, errors = program(
        "verify", corpus, "--layers", "2", "--center", "m", "--pools", "span:subject,last", *target
    )
    assert code == 0
    assert "span:subject was not checked" in errors
    code, _, errors = program("similarity", corpus, *options, "--separate")
    assert code == 0, errors
    code, output, _ = program("similarity", corpus, *options, "--separate", "--json")
    names = [pool["pool"] for pool in json.loads(output)["pools"]]
    assert names == [
        *("layer 2 mean", "layer 2 position:-1", "layer 4 mean", "layer 4 position:-1", "all"),
    ]
    report = tmp_path / "report.html"
    code, _, errors = program("report", corpus, *options, "--separate", "--out", report)
    assert code == 0, errors
    assert '"layers":["layer 2","layer 4"],"pools":["mean",' in report.read_text()


def test_csv_has_a_table_per_layer_and_pool(actvec, tmp_path, corpus):
    out = tmp_path / "tables"
    options = ("--layers", "1,3", "--separate", "--pools", "mean,span:subject")
    assert actvec("csv", corpus, "--out", out, *options)[0] == 0
    names = sorted(path.name for path in out.glob("*_raw.csv"))
    assert names == [
        f"vectors_layer{layer}_{pool}_raw.csv"
        for layer in (1, 3)
        for pool in ("mean", "span_subject")
    ]
    tables = json.loads((out / "vectors_metadata.json").read_text())["tables"]
    stamp = tables["vectors_layer3_mean_raw.csv"]["stamp"]
    assert (stamp["layers"], stamp["separate_layers"]) == ([3], False)
    assert [pool["name"] for pool in stamp["pools"]] == ["mean"]


def test_csv_replaces_no_table_of_another_layer(actvec, tmp_path, corpus):
    out = tmp_path / "tables"
    assert actvec("csv", corpus, "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert actvec("csv", corpus, "--out", out)[0] == 0
    for options in (("--layers", "1"), ("--hook", "resid_pre"), ("--pools", "mean")):
        code, _, errors = actvec("csv", corpus, "--out", out, *options)
        assert code == 2
        assert "holds vectors of another stamp, and is not replaced" in errors
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_info_lists_what_can_be_asked_for(actvec):
    code, output, _ = actvec("info")
    assert code == 0
    assert "layers 0-6; hooks resid_post, resid_pre, attn_out, mlp_out" in output
    assert "exp_933 (half-life 6.7% of the document)" in output
    assert "texts, token ids" in output
    answer = json.loads(actvec("info", "--json")[1])
    assert answer["layers_on_offer"] == list(range(7))
    assert answer["hooks"] == ["resid_post", "resid_pre", "attn_out", "mlp_out"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--mode", "short", "--layers", "99"), "settings.layers"),
        (("--mode", "short", "--hook", "resid_mid"), "settings.hook"),
        (("--pools", "meen"), "settings.pools"),
    ],
    ids=str,
)
def test_what_is_not_on_offer_names_info(actvec, tmp_path, options, field):
    code, _, errors = actvec("extract", "--text", TEXT, "--out", tmp_path, *options)
    assert code == 2
    assert field in errors
    assert "`actvec info` lists the layers, hooks and pools on offer." in errors
    assert ("--max-layer last" in errors) == (field == "settings.layers")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "say which pools a vector has: --mode short"),
        (("--mode", "short", "--pools", "mean"), "--mode already names pools"),
        (("--mode", "short", "--layers", "5-2"), "'5-2' names no layers; write 8,12,16"),
        (("--mode", "short", "--layers", "a"), "'a' names no layers"),
        (("--mode", "short", "--layers", "2,1-3"), "'2,1-3' names a layer twice"),
        (("--mode", "short", "--chat-template-kwargs", "[1]"), "not a JSON object such as"),
    ],
    ids=str,
)
def test_wrong_choices_are_usage_errors(actvec, tmp_path, options, reason):
    code, _, errors = actvec("extract", "--text", TEXT, "--out", tmp_path, *options)
    assert code == 2
    assert reason in errors
    assert list(tmp_path.iterdir()) == []


def test_layers_are_written_in_any_order():
    assert Layers().convert("9, 2-4,0", None, None) == (0, 2, 3, 4, 9)
    assert Layers().convert("all", None, None) == "all"
