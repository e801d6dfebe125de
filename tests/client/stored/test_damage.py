"""`load` of folders that lack something, or have it twice: an error, never fewer documents."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.numpy import save_file

from actvec.client import load
from actvec.client.errors import DataLoss


def test_index_says_which_rows_are_there(folders, tmp_path):
    """A kill can leave a shard with more vectors than its index."""
    name = "vectors-00000"
    shard = folders / "shards" / f"{name}.safetensors"
    (tmp_path / shard.name).write_bytes(shard.read_bytes())
    lines = shard.with_suffix(".jsonl").read_text().splitlines(keepends=True)
    (tmp_path / f"{name}.jsonl").write_text("".join(lines[:9]))
    vectors = load(tmp_path)
    assert (len(vectors), len(vectors.array)) == (9, 9)
    assert_array_equal(vectors.array, load(folders / "shards").array[:9])


def test_row_without_a_vector_is_damage(folders, tmp_path):
    for path in (folders / "shards").glob("vectors-00000.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "vectors-00000.jsonl").open("a") as index:
        index.write((folders / "shards" / "vectors-00001.jsonl").read_text().splitlines()[0])
    with pytest.raises(DataLoss, match="it has 17 rows, and its vectors 16"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_damaged_record_of_a_job_is_named(folders, tmp_path, content):
    folder = tmp_path / "shards"
    shutil.copytree(folders / "shards", folder)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DataLoss, match=r"manifest\.json or a file beside it cannot be read"):
        load(folder)


def test_row_without_an_id_is_damage(folders, tmp_path):
    for path in (folders / "shards").glob("vectors-00000.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = tmp_path / "vectors-00000.jsonl"
    index.write_text(index.read_text().replace('"id"', '"di"', 1))
    with pytest.raises(DataLoss, match=r"vectors-00000\.jsonl or a file beside it .* 'id'"):
        load(tmp_path)


def test_empty_index_is_damage(folders, tmp_path):
    shard = folders / "shards" / "vectors-00000.safetensors"
    (tmp_path / shard.name).write_bytes(shard.read_bytes())
    (tmp_path / "vectors-00000.jsonl").touch()
    with pytest.raises(DataLoss, match="it has no rows"):
        load(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_bytes(b"no header"),
    ],
    ids=["missing", "cut", "overwritten"],
)
def test_damage_is_named(folders, tmp_path, spoil):
    for suffix in ("jsonl", "safetensors"):
        name = f"vectors-00000.{suffix}"
        (tmp_path / name).write_bytes((folders / "shards" / name).read_bytes())
    spoil(tmp_path / "vectors-00000.safetensors")
    with pytest.raises(DataLoss, match="vectors-00000"):
        assert load(tmp_path).array is None


@pytest.mark.parametrize("layout", ["files", "shards"])
def test_vectors_of_another_width_are_damage(folders, tmp_path, layout):
    """They are whole by themselves, and do not go with the others or with their stamp."""
    for path in (folders / layout).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoiled = max(tmp_path.glob("*.safetensors"))
    with safe_open(spoiled, "numpy") as file:
        tensor, metadata = file.get_tensor("vec"), file.metadata()
    save_file({"vec": np.ascontiguousarray(tensor[..., 1:])}, spoiled, metadata)
    with pytest.raises(DataLoss, match="cannot be read"):
        assert load(tmp_path).array is None


def cut_index(folder):
    """The last shard lacks its last document, and nothing in it says so."""
    index = max(folder.glob("vectors-*.jsonl"))
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:-1]))


def cut_index_within(folder):
    index = folder / "vectors-00001.jsonl"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:-1]))


def remove_last(folder):
    place = folder / "vectors.parquet" if (folder / "vectors.parquet").exists() else folder
    last = max(path for path in place.iterdir() if path.suffix in {".safetensors", ".parquet"})
    for path in place.glob(f"{last.stem}*"):
        path.unlink()


def remove_first(folder):
    for path in folder.rglob("*-00000.*"):
        path.unlink()


def double(folder):
    last = max(folder.glob("*.safetensors")).stem
    for path in folder.glob(f"{last}*"):
        path.with_name(path.name.replace(last, f"{last}9")).write_bytes(path.read_bytes())


def overwrite(folder):
    """A file in the middle is a copy of another: as many rows, of fewer documents."""
    for path in folder.rglob("*-00001.*"):
        path.write_bytes(path.with_name(path.name.replace("-00001", "-00000")).read_bytes())


@pytest.mark.parametrize(
    ("layout", "spoil", "told"),
    [
        ("shards", cut_index, r"holds 56 vectors, and \S+manifest\.json names 57"),
        ("shards", cut_index_within, r"vectors-00001\.jsonl .* 15 rows, and its vectors 16"),
        ("shards", remove_first, r"vectors-00000\.jsonl is missing"),
        ("shards", remove_last, "holds 48 vectors, and .* names 57"),
        ("shards", overwrite, r"document \d+ \('doc-\d+'\) is in \S+ twice"),
        ("parquet", remove_first, r"part-00000\.parquet is missing"),
        ("parquet", remove_last, "holds 48 vectors, and .* names 57"),
        ("parquet", overwrite, "twice"),
        ("files", remove_last, "holds 56 vectors, and .* names 57"),
        ("files", double, "twice"),
    ],
)
def test_lost_documents_are_not_passed_over(folders, tmp_path, layout, spoil, told):
    """Every file that is left is whole, so only the job's record knows."""
    folder = tmp_path / layout
    shutil.copytree(folders / layout, folder)
    assert len(load(folder)) == 57
    spoil(folder)
    with pytest.raises(DataLoss, match=told):
        load(folder)
    if layout == "parquet":
        with pytest.raises(DataLoss, match=told):
            load(folder / "vectors.parquet")
