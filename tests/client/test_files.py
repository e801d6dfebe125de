"""Vectors on disk: whole, self-describing, and each in a file of its own."""

import hashlib
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from actvec.client import OutOfRange, Pool, Stamp, Vector
from actvec.client.files import DuplicateNameError, VectorFolder, file_name
from actvec.client.whole import write_whole

SHA = hashlib.sha256(b"text").hexdigest()
OTHER_SHA = hashlib.sha256(b"another text").hexdigest()
STAMP = Stamp(
    model="demo",
    revision="sha256:00",
    tokenizer_sha256="11",
    dtype="float32",
    layers=(1, 2, 3),
    hook="resid_post",
    prepend_bos=True,
    mode="long",
    pools=(Pool("last", 0.0), Pool("exp_933", 0.067)),
    truncation="error",
    corpus_mean_id="",
    corpus_mean_sha256="",
    actvec_version="0.1.0",
)


def make_vector(values=(3.0, 0.0, 0.0, 4.0), document_id="doc", stamp=STAMP, text_sha256=SHA):
    return Vector(
        values=np.array(values, np.float32),
        id=document_id,
        tokens=12,
        tokens_used=10,
        truncated=False,
        smallest_count=0,
        stamp=stamp,
        text_sha256=text_sha256,
    )


def test_a_vector_is_one_float16_tensor_named_vec(tmp_path):
    saved = VectorFolder(tmp_path).save(make_vector())
    assert saved.vector_path == tmp_path / "activation_vector_long_doc.safetensors"
    tensors = load_file(saved.vector_path)
    assert list(tensors) == ["vec"]
    assert tensors["vec"].dtype == np.float16
    assert_array_equal(tensors["vec"], [3, 0, 0, 4])


def test_the_metadata_says_everything_that_the_vector_depends_on(tmp_path):
    saved = VectorFolder(tmp_path).save(make_vector())
    assert saved.metadata_path == tmp_path / "activation_vector_long_doc_metadata.json"
    metadata = json.loads(saved.metadata_path.read_text())
    assert metadata == saved.metadata
    assert metadata["id"] == "doc"
    assert metadata["text_sha256"] == SHA
    assert (metadata["tokens"], metadata["tokens_used"], metadata["truncated"]) == (12, 10, False)
    assert (metadata["dimensions"], metadata["dtype"], metadata["norm"]) == (4, "float16", 5.0)
    assert metadata["pools"] == [{"name": "last", "depth": 0}, {"name": "exp_933", "depth": 0.067}]
    assert metadata["centered"] is False
    assert metadata["stamp"] == json.loads(json.dumps(STAMP.to_dict()))
    assert metadata["created_at"].endswith("+00:00")
    data = saved.vector_path.read_bytes()
    assert metadata["vector_file_sha256"] == hashlib.sha256(data).hexdigest()


def test_centred_is_what_the_stamp_says(tmp_path):
    stamp = Stamp(**{**vars(STAMP), "corpus_mean_id": "mean-1", "corpus_mean_sha256": "22"})
    metadata = VectorFolder(tmp_path).save(make_vector(stamp=stamp)).metadata
    assert metadata["centered"] is True
    assert metadata["stamp"]["corpus_mean_id"] == "mean-1"


def test_a_text_without_an_id_goes_by_its_hash(tmp_path):
    saved = VectorFolder(tmp_path).save(make_vector(document_id=""))
    assert saved.vector_path.name == f"activation_vector_long_{SHA[:12]}.safetensors"


@pytest.mark.parametrize("value", [65520.0, -1e6, float("inf"), float("nan")])
def test_a_number_that_float16_cannot_hold_is_an_error_and_leaves_no_file(tmp_path, value):
    with pytest.raises(OutOfRange, match="65504"):
        VectorFolder(tmp_path).save(make_vector([1.0, value, 0, 0]))
    assert list(tmp_path.iterdir()) == []


def test_a_second_document_of_the_same_id_is_an_error_and_the_first_is_kept(tmp_path):
    folder = VectorFolder(tmp_path)
    first = folder.save(make_vector([1, 0, 0, 0]))
    with pytest.raises(DuplicateNameError, match="'doc'"):
        folder.save(make_vector([2, 0, 0, 0]))
    assert load_file(first.vector_path)["vec"][0] == 1


def test_a_later_run_replaces_the_vector_of_the_same_text(tmp_path):
    VectorFolder(tmp_path).save(make_vector([1, 0, 0, 0]))
    saved = VectorFolder(tmp_path).save(make_vector([2, 0, 0, 0]))
    assert load_file(saved.vector_path)["vec"][0] == 2


def test_a_later_run_never_replaces_the_vector_of_another_text(tmp_path):
    first = VectorFolder(tmp_path).save(make_vector())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DuplicateNameError, match="another text") as error:
        VectorFolder(tmp_path).save(make_vector(text_sha256=OTHER_SHA))
    assert str(first.vector_path) in str(error.value)
    assert "--out" in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_metadata_that_do_not_say_of_which_text_are_not_taken_for_those_of_the_same(tmp_path):
    """As of files that another tool wrote under our names."""
    saved = VectorFolder(tmp_path).save(make_vector())
    saved.metadata_path.write_text('{"mode": "long"}')
    with pytest.raises(DuplicateNameError, match="another text"):
        VectorFolder(tmp_path).save(make_vector())


def test_the_name_is_free_again_where_the_vector_was_removed(tmp_path):
    VectorFolder(tmp_path).save(make_vector()).vector_path.unlink()
    saved = VectorFolder(tmp_path).save(make_vector(text_sha256=OTHER_SHA))
    assert json.loads(saved.metadata_path.read_text())["text_sha256"] == OTHER_SHA


def test_a_vector_without_metadata_was_cut_short_and_is_written_again(tmp_path):
    VectorFolder(tmp_path).save(make_vector()).metadata_path.unlink()
    saved = VectorFolder(tmp_path).save(make_vector([2, 0, 0, 0], text_sha256=OTHER_SHA))
    assert load_file(saved.vector_path)["vec"][0] == 2


def test_nothing_but_the_two_files_is_left(tmp_path):
    folder = VectorFolder(tmp_path / "deep" / "down")
    folder.save(make_vector())
    assert len(list(folder.path.iterdir())) == 2


def test_files_get_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    saved = VectorFolder(tmp_path).save(make_vector())
    assert saved.vector_path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"before")

    def full(_descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_never_written_over(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"before")
    with path.open("rb") as before:
        write_whole(path, b"after")
        assert before.read() == b"before"
    assert path.read_bytes() == b"after"


def test_harmless_ids_stand_for_themselves():
    assert file_name("Report_2024-01.v2", SHA) == "Report_2024-01.v2"


def test_other_ids_are_escaped():
    assert file_name("a/b c%", SHA) == "a%2Fb%20c%25"
    assert file_name("é", SHA) == "%C3%A9"
    assert file_name("~", SHA) == "%7E"


ids = st.text(st.characters(), min_size=1, max_size=300)


@given(st.lists(ids, min_size=2, max_size=8, unique=True))
def test_different_ids_have_different_names(several):
    assert len({file_name(one, SHA) for one in several}) == len(several)


@given(ids)
def test_a_name_is_short_and_stays_in_its_folder(document_id):
    name = file_name(document_id, SHA)
    assert len(f"activation_vector_short_{name}_metadata.json") <= 255
    assert name.isascii()
    assert "/" not in name
    assert "\0" not in name


def test_an_id_is_never_taken_for_the_cut_form_of_another():
    long_id = "a" * 1000
    assert file_name(file_name(long_id, SHA), SHA) != file_name(long_id, SHA)
