"""`load`: vectors on disk, read back from every format."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file

from actvec.client import Document, InvalidArgument, MissingExtra, UnsupportedInput, load
from actvec.client.bulk import FileSink, Layout, ParquetSink, ShardSink, VectorJob
from actvec.client.documents import Shard, open_documents
from actvec.client.errors import FailedPrecondition
from actvec.client.stored import loading
from tests.client.bulk.jobs import FORMATS, write_corpus
from tests.client.bulk.saved import read_back
from tests.client.findings.planted import write_shards
from tests.client.stored.conftest import ASKED

SINKS = {"files": FileSink, "shards": ShardSink, "parquet": ParquetSink}


@pytest.mark.parametrize("layout", FORMATS)
def test_vectors_come_back(folders, layout):
    vectors = load(folders / layout)
    saved = {one.id: one for one in read_back(folders / layout, layout)}
    assert vectors.array.shape == (57, 2, 2, 128)
    assert vectors.array.dtype == np.float16
    assert sorted(vectors.ids) == sorted(saved)
    for number, name in enumerate(vectors.ids):
        assert_array_equal(vectors.array[number].ravel(), saved[name].values)
        assert vectors.facts["index"][number] == saved[name].index
    assert vectors.facts["tokens"].min() > 1
    assert (vectors.layers, vectors.pools) == (("1", "2"), ("mean", "last"))
    assert vectors.stamp.model == "demo"


def test_formats_have_the_same_stamp(folders):
    stamps = [load(folders / layout).stamp for layout in FORMATS]
    assert stamps[0] == stamps[1] == stamps[2]


def test_shards_are_memory_mapped(folders):
    vectors = load(folders / "shards" / "vectors-00001.safetensors")
    assert isinstance(vectors.array, np.memmap)
    assert len(vectors) == 16


@pytest.mark.parametrize("layout", FORMATS)
def test_blocks_and_rows_are_the_array(folders, layout):
    vectors = load(folders / layout)
    whole = np.empty(vectors.array.shape, np.float32)
    for rows, block in vectors.blocks():
        whole[rows] = block
    assert_array_equal(whole, vectors.array.astype(np.float32))
    assert_array_equal(vectors.rows(1, 0), whole[:, 1, 0])


def test_single_files_are_loaded(folders):
    single = folders / "files" / "activation_vector_custom"
    [path] = folders.glob(f"files/{single.name}-*_doc-7.safetensors")
    for name in (path, path.with_name(f"{path.stem}_metadata.json")):
        vectors = load(name)
        assert vectors.ids == ["doc-7"]
        assert_array_equal(vectors.array.ravel(), load_file(path)["vec"])


def test_parts_of_machines_are_joined(folders):
    shards = sorted(folders.glob("shards/vectors-*.jsonl"))
    assert load(*shards).ids == load(folders / "shards").ids


@pytest.fixture
def shard_job(client, tmp_path):
    """Run the job of a shard of one corpus, in the folder that it is given."""
    corpus = write_corpus(tmp_path / "corpus.jsonl")

    def run(folder, shard, **asked):
        source = open_documents(corpus, shard and Shard.parse(shard))
        VectorJob(source, folder, layout=Layout("shards"), **(asked or ASKED)).run(client)
        return folder

    return run


def test_folder_of_shards_is_loaded(shard_job, folders, tmp_path):
    out = tmp_path / "out"
    for number in (2, 10, 1, *range(3, 10)):
        shard_job(out / f"{number}-of-10", f"{number}/10")
    vectors, whole = load(out), load(folders / "shards")
    assert vectors.facts["index"].tolist() == sorted(
        whole.facts["index"], key=lambda i: (i % 10, i)
    )
    (out / "10-of-10").rename(tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match=r"out has no shard 10/10; run those first"):
        load(out)
    assert len(load(out / "3-of-10", tmp_path / "elsewhere")) == 12


def test_shards_of_two_totals_are_refused(shard_job, tmp_path):
    out = tmp_path / "out"
    for shard in ("1/2", "2/2", "1/3"):
        shard_job(out / shard.replace("/", "-of-"), shard)
    with pytest.raises(FailedPrecondition, match=r"out holds shards of 2, 3; .*count twice"):
        load(out)
    refusal = r"/2-of-2 holds shard 2/2 and \S+/1-of-3 shard 1/3 of the same corpus"
    with pytest.raises(FailedPrecondition, match=refusal):
        load(out / "2-of-2", out / "1-of-3")
    whole, half, quarter = (
        shard_job(tmp_path / name, shard)
        for name, shard in (("whole", None), ("half", "1/2"), ("quarter", "4/4"))
    )
    with pytest.raises(FailedPrecondition, match=r"whole holds all and \S+/half shard 1/2"):
        load(whole, half)
    # Different totals, and no document in both.
    assert len(load(half, quarter)) == 42


@pytest.mark.parametrize("layout", FORMATS)
def test_files_are_named_once(folders, layout):
    """Else a copy of each document would be among those that it is held out from."""
    folder = folders / layout
    with pytest.raises(UnsupportedInput, match="is named twice"):
        load(folder, folder / ".." / layout)
    last = max(path for path in folder.rglob("*") if path.suffix in {".safetensors", ".parquet"})
    with pytest.raises(UnsupportedInput, match="is named twice"):
        load(folder, last)


def test_picked_layers_and_pools_are_a_part(folders):
    whole = load(folders / "shards")
    part = whole.pick([2], ["last"])
    assert_array_equal(part.array, whole.array[:, [1]][:, :, [1]])
    assert part.stamp.layers == (2,)
    assert (part.shape, part.layers, part.pools) == ((1, 1, 128), ("2",), ("last",))
    with pytest.raises(InvalidArgument, match="no layer 3; there are: 1, 2"):
        whole.pick([3])
    with pytest.raises(InvalidArgument, match="no pool exp_933; there are: mean, last"):
        whole.pick(pools=["exp:0.067"])


@pytest.mark.parametrize("layout", FORMATS)
def test_kept_columns_are_loaded(client, layout, tmp_path):
    names = ("odd", "even")
    documents = [
        Document(f"doc-{n}", f"Text {n}.", columns={"label": names[n % 2], "year": 1900 + n})
        for n in range(4)
    ]
    with SINKS[layout](tmp_path / layout) as sink:
        for vector in client.stream(documents, mode="short", ordered=True):
            sink.write(vector)
    place = tmp_path / layout
    vectors = load(place)
    assert list(vectors.columns) == ["label", "year"]
    assert vectors.columns["label"].tolist() == ["odd", "even"] * 2
    assert vectors.array[vectors.columns["label"] == "odd"].shape[0] == 2
    assert vectors.columns["year"].dtype == np.int64
    assert list(vectors.to_pandas()["year"]) == [1900, 1901, 1902, 1903]
    with pytest.raises(InvalidArgument, match="no column 'date'; kept of the corpus: label, year"):
        vectors.column("date")


def test_rows_that_failed_have_no_vector(folders, tmp_path):
    """As Ray writes them."""
    stamp = load(folders / "shards").stamp
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "label": [1, 2, 3],
            "vector": pa.array([[0.0] * 512, None, [1.0] * 512], pa.list_(pa.float32())),
            "error": [None, "INVALID_ARGUMENT: blank", None],
        }
    ).replace_schema_metadata({"actvec.stamp": json.dumps(stamp.to_dict())})
    pq.write_table(table, tmp_path / "ray.parquet")
    vectors = load(tmp_path / "ray.parquet")
    assert (vectors.ids, list(vectors.columns["label"])) == (["a", "c"], [1, 3])
    assert vectors.array[:, 1, 1, 5].tolist() == [0, 1]


def test_file_in_which_all_failed_is_passed_over(folders, tmp_path):
    whole = load(folders / "parquet")
    path = tmp_path / "failed.parquet"
    failed = whole.to_arrow().slice(0, 0).append_column("error", pa.array([], pa.string()))
    stamp = {"actvec.stamp": json.dumps(whole.stamp.to_dict())}
    pq.write_table(failed.replace_schema_metadata(stamp), path)
    joined = load(path, *sorted((folders / "parquet").glob("*/*.parquet")))
    assert_array_equal(joined.array, whole.array)
    with pytest.raises(UnsupportedInput, match="each of its documents failed"):
        load(path)


@pytest.mark.parametrize("layout", FORMATS)
def test_mixed_stamps_are_refused(client, layout, tmp_path):
    for layer in (1, 2):
        with SINKS[layout](tmp_path / str(layer)) as sink:
            sink.write(client.extract("A text.", layers=[layer], pools=["mean"]))
    with pytest.raises(FailedPrecondition, match=r"layers is \[1\] there and \[2\] here"):
        load(tmp_path / "1", tmp_path / "2")


def test_mixed_single_files_are_refused(client, tmp_path):
    with FileSink(tmp_path) as sink:
        sink.write(client.extract("A text.", mode="short"))
        sink.write(client.extract("A text.", mode="long"))
    with pytest.raises(FailedPrecondition, match="mode is 'long' there and 'short' here; pools"):
        load(tmp_path)
    assert len(load(*tmp_path.glob("activation_vector_long_*.safetensors"))) == 1


def test_other_tools_take_them(folders):
    vectors = load(folders / "shards")
    flat = vectors.array.reshape(57, -1).astype(np.float32)
    assert_array_equal(np.stack(vectors.to_pandas()["vector"]), flat)
    assert_array_equal(vectors.to_polars()["vector"].to_numpy(), flat)
    assert_array_equal(vectors.to_torch().numpy(), vectors.array)
    dataset = vectors.to_dataset()
    assert dataset[3]["id"] == vectors.ids[3]
    assert_array_equal(np.array(dataset[3]["vector"], np.float32), flat[3])
    assert json.loads(vectors.to_arrow().schema.metadata[b"actvec.shape"]) == [2, 2, 128]


def as_loaded(folder, values):
    """Vectors with a kept column of these values."""
    array = np.zeros((len(values), 3, 2, 24), np.float32)
    write_shards(folder, array, {"kept": np.array(values, object)})
    return load(folder)


@pytest.mark.parametrize(
    ("values", "in_tables"),
    [
        ([1, "x", True, None, 2.5], ["1", "x", "true", None, "2.5"]),
        ([0.5, True], ["0.5", "true"]),
        ([2**63, -1], ["9223372036854775808", "-1"]),
        ([2**70, 1], ["1180591620717411303424", "1"]),
        ([0.5, 2**53 + 1], ["0.5", "9007199254740993"]),
        (["a\0", "b" * 5000], ["a\0", "b" * 5000]),
    ],
)
def test_values_of_all_kinds_survive(tmp_path, values, in_tables):
    vectors = as_loaded(tmp_path, values)
    assert vectors.columns["kept"].tolist() == values
    assert vectors.to_arrow()["kept"].to_pylist() == in_tables
    assert vectors.to_polars()["kept"].to_list() == in_tables


def test_one_long_text_does_not_widen_all(tmp_path):
    vectors = as_loaded(tmp_path, ["short"] * 9 + ["long" * 10_000])
    assert vectors.columns["kept"].nbytes < 1000
    assert (vectors.columns["kept"] == "short").sum() == 9


@pytest.mark.parametrize("name", ["vector", "id"])
def test_column_of_our_name_is_refused_in_tables(tmp_path, name):
    write_shards(tmp_path, np.zeros((1, 3, 2, 24), np.float32), {name: np.array(["mine"])})
    vectors = load(tmp_path)
    assert vectors.columns[name].tolist() == ["mine"]
    with pytest.raises(InvalidArgument, match=f"'{name}' of the corpus and the vectors' own"):
        vectors.to_arrow()


def test_missing_tool_is_named(folders, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(MissingExtra, match=r"needs polars.*pip install 'actvec\[frames\]'"):
        load(folders / "shards").to_polars()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UnsupportedInput, match="holds no vectors"):
        load(tmp_path)
    with pytest.raises(UnsupportedInput, match="no such folder or file"):
        load(tmp_path / "absent")
    save_file({"vec": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UnsupportedInput, match="no file of vectors"):
        load(tmp_path / "other.safetensors")
    (tmp_path / "vectors-00000.jsonl").touch()
    (tmp_path / "part-00000.parquet").touch()
    with pytest.raises(UnsupportedInput, match="holds shards and Parquet files"):
        load(tmp_path)


def test_texts_extracted_into_a_job_are_no_copies(client, folders, tmp_path):
    """Each is the first document of its own run, and has no id."""
    shutil.copytree(folders / "files", tmp_path / "files")
    for text in ("One text.", "Another text."):
        FileSink(tmp_path / "files").save(client.extract(text, **ASKED))
    assert len(load(tmp_path / "files")) == 59


def test_records_of_others_count_nothing(folders, tmp_path):
    """A job's own record goes before one beside its folder, which may be anyone's."""
    shutil.copytree(folders / "shards", tmp_path / "vectors")
    (tmp_path / "job.json").write_text('["of another program"]')
    assert len(load(tmp_path / "vectors")) == 57


@pytest.mark.parametrize("layout", ["shards", "parquet"])
def test_running_job_is_loaded_as_it_was(folders, tmp_path, monkeypatch, layout):
    """What it commits while its files are read is in its record, and not among them."""
    folder = tmp_path / layout
    shutil.copytree(folders / layout, folder)
    record = json.loads((folder / "manifest.json").read_text())
    name = {"shards": "read_shard", "parquet": "read_parquet"}[layout]
    read = getattr(loading, name)

    def commit_meanwhile(path):
        (folder / "manifest.json").write_text(json.dumps({**record, "vectors": 64}))
        return read(path)

    monkeypatch.setattr(loading, name, commit_meanwhile)
    assert len(load(folder)) == 57
