"""Vectors on disk: whole, self-describing, and each in its own file."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from actvec.client import OutOfRange, Stamp, Vector
from actvec.client.bulk.sinks.single_files import FileSink, file_name
from actvec.client.bulk.sinks.sink import DuplicateNameError
from actvec.client.files import write_atomic
from tests.client.bulk.stamp import STAMP
from tests.disk import failing_disk

SHA = hashlib.sha256(b"text").hexdigest()
OTHER_SHA = hashlib.sha256(b"another text").hexdigest()


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


def test_file_holds_one_float16_tensor(tmp_path):
    saved = FileSink(tmp_path).save(make_vector())
    assert saved.vector_path == tmp_path / "activation_vector_long_doc.safetensors"
    tensors = load_file(saved.vector_path)
    assert list(tensors) == ["vec"]
    assert tensors["vec"].dtype == np.float16
    assert_array_equal(tensors["vec"], [3, 0, 0, 4])


def test_metadata_hold_all_that_a_vector_depends_on(tmp_path):
    saved = FileSink(tmp_path).save(make_vector())
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


def test_centered_is_what_the_stamp_says(tmp_path):
    stamp = Stamp(**{**vars(STAMP), "corpus_mean_id": "mean-1", "corpus_mean_sha256": "22"})
    metadata = FileSink(tmp_path).save(make_vector(stamp=stamp)).metadata
    assert metadata["centered"] is True
    assert metadata["stamp"]["corpus_mean_id"] == "mean-1"


def test_text_without_an_id_goes_by_its_hash(tmp_path):
    saved = FileSink(tmp_path).save(make_vector(document_id=""))
    assert saved.vector_path.name == f"activation_vector_long_{SHA[:12]}.safetensors"


@pytest.mark.parametrize("value", [65520.0, -1e6, float("inf"), float("nan")])
def test_number_beyond_float16_leaves_no_file(tmp_path, value):
    with pytest.raises(OutOfRange, match="65504"):
        FileSink(tmp_path).save(make_vector([1.0, value, 0, 0]))
    assert list(tmp_path.iterdir()) == []


def test_second_document_of_an_id_is_an_error(tmp_path):
    folder = FileSink(tmp_path)
    first = folder.save(make_vector([1, 0, 0, 0]))
    with pytest.raises(DuplicateNameError, match="'doc'"):
        folder.save(make_vector([2, 0, 0, 0]))
    assert load_file(first.vector_path)["vec"][0] == 1


def test_repeated_id_has_its_own_file(tmp_path):
    folder = FileSink(tmp_path, run="one")
    saved = [folder.save(replace(make_vector([n, 0, 0, 0]), index=n)) for n in (3, 7)]
    assert [one.vector_path.name for one in saved] == [
        "activation_vector_long_doc.safetensors",
        "activation_vector_long_doc~7.safetensors",
    ]
    assert [load_file(one.vector_path)["vec"][0] for one in saved] == [3, 7]
    assert {row.index for row in folder.rows()} == {3, 7}
    again = FileSink(tmp_path, run="one")
    with pytest.raises(DuplicateNameError, match="the id 'doc' and the index 7") as error:
        again.save(replace(make_vector(), index=7))
    assert error.value.field == "id"


def test_later_run_replaces_the_same_text(tmp_path):
    FileSink(tmp_path).save(make_vector([1, 0, 0, 0]))
    saved = FileSink(tmp_path).save(make_vector([2, 0, 0, 0]))
    assert load_file(saved.vector_path)["vec"][0] == 2


def test_later_run_never_replaces_another_text(tmp_path):
    first = FileSink(tmp_path).save(make_vector())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DuplicateNameError, match="another text") as error:
        FileSink(tmp_path).save(make_vector(text_sha256=OTHER_SHA))
    assert str(first.vector_path) in str(error.value)
    assert error.value.setting == "out"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


CENTERED = replace(STAMP, corpus_mean_id="mean-1", corpus_mean_sha256="22")


@pytest.mark.parametrize(
    ("stamp", "label"),
    [
        (STAMP, "long"),
        (CENTERED, r"long-[0-9a-f]{8}"),
        (replace(CENTERED, corpus_mean_id="mean-2"), r"long-[0-9a-f]{8}"),
        (replace(STAMP, layers=(4,), default_target=False), r"long-[0-9a-f]{8}"),
        (replace(STAMP, hook="resid_pre", default_target=False), r"long-[0-9a-f]{8}"),
        (replace(STAMP, mode=None), r"custom-[0-9a-f]{8}"),
    ],
    ids=["raw", "centered", "another mean", "layers", "hook", "pools"],
)
def test_names_tell_vectors_of_one_text_apart(tmp_path, stamp, label):
    folder = FileSink(tmp_path)
    first = folder.save(make_vector())
    saved = FileSink(tmp_path).save(make_vector([2, 0, 0, 0], stamp=stamp))
    assert re.fullmatch(rf"activation_vector_{label}_doc\.safetensors", saved.vector_path.name)
    assert (saved.vector_path == first.vector_path) == (stamp is STAMP)


def test_labels_of_stamps_are_distinct():
    stamps = [CENTERED, replace(CENTERED, corpus_mean_id="mean-2"), replace(STAMP, mode=None)]
    stamps += [replace(STAMP, layers=(n,), default_target=False) for n in range(5)]
    assert len({stamp.label for stamp in stamps}) == len(stamps)


def test_vector_of_another_stamp_is_never_replaced(tmp_path):
    """Not by settings either that its name does not show, such as truncation."""
    FileSink(tmp_path).save(make_vector())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        DuplicateNameError, match="truncation is 'error' there and 'end' her"
    ) as error:
        FileSink(tmp_path).save(make_vector(stamp=replace(STAMP, truncation="end")))
    assert error.value.setting == "out"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_earlier_metadata_are_still_read(tmp_path):
    """Their stamps lack later attributes, and still equal today's."""
    saved = FileSink(tmp_path).save(make_vector())
    metadata = json.loads(saved.metadata_path.read_text())
    for name in ("separate_layers", "chat_template_sha256", "chat_template_date"):
        del metadata["stamp"][name]
    saved.metadata_path.write_text(json.dumps(metadata))
    assert FileSink(tmp_path).save(make_vector([2, 0, 0, 0])).metadata["norm"] == 2


def test_metadata_without_a_text_are_another_text(tmp_path):
    """As in files that another tool wrote under our names."""
    saved = FileSink(tmp_path).save(make_vector())
    saved.metadata_path.write_text('{"mode": "long"}')
    with pytest.raises(DuplicateNameError, match="another text"):
        FileSink(tmp_path).save(make_vector())


def test_name_is_free_once_its_vector_is_removed(tmp_path):
    FileSink(tmp_path).save(make_vector()).vector_path.unlink()
    saved = FileSink(tmp_path).save(make_vector(text_sha256=OTHER_SHA))
    assert json.loads(saved.metadata_path.read_text())["text_sha256"] == OTHER_SHA


def test_vector_without_metadata_is_written_again(tmp_path):
    FileSink(tmp_path).save(make_vector()).metadata_path.unlink()
    saved = FileSink(tmp_path).save(make_vector([2, 0, 0, 0], text_sha256=OTHER_SHA))
    assert load_file(saved.vector_path)["vec"][0] == 2


def test_nothing_but_the_two_files_is_left(tmp_path):
    folder = FileSink(tmp_path / "deep" / "down")
    folder.save(make_vector())
    assert len(list(folder.folder.iterdir())) == 2


def test_files_get_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    saved = FileSink(tmp_path).save(make_vector())
    assert saved.vector_path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_failed_write_leaves_the_file_unchanged(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"before")

    with failing_disk(), pytest.raises(OSError, match="No space"):
        write_atomic(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_never_written_over(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"before")
    with path.open("rb") as before:
        write_atomic(path, b"after")
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
def test_name_is_short_and_stays_in_its_folder(document_id):
    name = file_name(document_id, SHA)
    assert len(f"activation_vector_short_{name}_metadata.json") <= 255
    assert name.isascii()
    assert "/" not in name
    assert "\0" not in name


def test_id_never_equals_a_cut_form():
    long_id = "a" * 1000
    assert file_name(file_name(long_id, SHA), SHA) != file_name(long_id, SHA)
