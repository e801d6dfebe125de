"""Checks of an uploaded mean: only its tensors are believed."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from actvec.pooling import MeanAccumulator
from actvec.server.errors import InputError, MeanMismatchError
from actvec.server.means.record import MeanRecord, SkippedDocuments
from actvec.server.means.record_json import encode_record
from actvec.server.means.store import MeanStore
from actvec.server.model.stamp import ModelStamp

D = 6
MODEL = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=(1, 2), hook="resid_post")


@pytest.fixture
def store(tmp_path):
    return MeanStore(tmp_path / "means")


def sums(lengths=(3, 5), seed=0):
    accumulator = MeanAccumulator(D, variance=True)
    random = np.random.default_rng(seed)
    for length in lengths:
        accumulator.add(random.normal(size=(length, D)).astype(np.float32))
    return accumulator


def file_of(accumulator=None, record=None, **changed):
    """A mean's file as the server writes it, with some tensors changed; None removes one."""
    ours = accumulator or sums()
    tensors = {
        "corpus_mean": np.ascontiguousarray(ours.mean().T),
        "counts": ours.counts,
        "sums": ours.sums,
        "corpus_variance": np.ascontiguousarray(ours.variance().T),
        "square_sums": ours.squares,
    } | changed
    there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return save(there, metadata={"actvec": json.dumps(encode_record(record or MeanRecord()))})


def test_a_file_of_ours_is_believed(store):
    content = file_of(record=MeanRecord(model=MODEL, documents=2, tokens=8, prepend_bos=True))
    record = store.upload("ours", content, D)
    assert (record.documents, record.tokens, record.max_tokens, record.d_model) == (2, 8, 5, D)
    assert (record.has_counts, record.has_variance, record.model) == (True, True, MODEL)


VARIANCE = np.ascontiguousarray(sums().variance().T)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"record": MeanRecord(documents=10**15)}, "a record of 1000000000000000 documents"),
        ({"record": MeanRecord(documents=3)}, "a record of 3 documents, and counts of 2"),
        ({"record": MeanRecord(tokens=9)}, "a record of 9 tokens, and counts of 8"),
        (
            {
                "record": MeanRecord(
                    skipped=(SkippedDocuments(reason="INTERNAL", documents=1 << 41),)
                )
            },
            "a mean has at most",
        ),
        ({"record": MeanRecord(corpus_sha256="not hex")}, "corpus_sha256 is not 64 hexadecimal"),
        ({"record": MeanRecord(corpus_sha256="AB" * 32)}, "corpus_sha256 is not 64 hexadecimal"),
        ({"square_sums": -sums().squares}, "square_sums that are negative"),
        ({"square_sums": sums().squares / 4}, "smaller than its sums and counts allow"),
        ({"square_sums": np.full((5, D), np.nan)}, "square_sums that are not finite"),
        ({"corpus_variance": VARIANCE * np.nan}, "corpus_variance that is not finite numbers"),
        (
            {"corpus_variance": -VARIANCE},
            "is not finite numbers of at least 0",
        ),
        ({"corpus_variance": VARIANCE.T.copy()}, r"float32 \[6, 5\]"),
        ({"corpus_variance": VARIANCE.astype(np.float64)}, "corpus_variance that is not"),
        ({"counts": np.array([2, 2, 2, 1, 0])}, "counts that are not 5 integers from 1"),
    ],
)
def test_a_file_that_cannot_be_is_refused(store, changed, complaint):
    with pytest.raises(InputError, match=f"^file: .*{complaint}"):
        store.upload("bad", file_of(**changed), D)
    assert store.records() == []


def test_documents_without_counts_are_unknown(store):
    record = MeanRecord(documents=12, tokens=34)
    record = store.upload("theirs", file_of(record=record, counts=None, sums=None), D)
    assert (record.documents, record.tokens, record.has_counts) == (0, 0, False)


def test_uploaded_corpus_digest_is_dropped(store):
    record = store.upload("theirs", file_of(record=MeanRecord(corpus_sha256="ab" * 32)), D)
    assert record.corpus_sha256 == ""


def file_with(name, dtype, shape, bits):
    """A mean's file with one tensor, and perhaps another, of a dtype that numpy lacks."""
    mean = np.ones((D, 4), np.float32).tobytes()
    more = bytes(int(np.prod(shape)) * bits // 8)
    tensors = {"corpus_mean": ("F32", [D, 4], mean)} | {name: (dtype, shape, more)}
    header, data = {}, b""
    for key, (of, size, content) in tensors.items():
        ends = [len(data), len(data) + len(content)]
        header[key] = {"dtype": of, "shape": size, "data_offsets": ends}
        data += content
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data


@pytest.mark.parametrize(("dtype", "bits"), [("BF16", 16), ("F8_E4M3", 8)])
@pytest.mark.parametrize(
    ("name", "wanted"), [("corpus_mean", "F32"), ("counts", "I64"), ("square_sums", "F64")]
)
def test_dtype_unknown_to_numpy_is_named(store, name, dtype, bits, wanted):
    content = file_with(name, dtype, [D, 4], bits)
    with pytest.raises(InputError, match=rf"^file: has {name} as {dtype} \[6, 4\]; .* {wanted}"):
        store.upload("bad", content, D)


def test_unread_tensor_may_have_any_dtype(store):
    assert store.upload("good", file_with("more", "BF16", [3], 16), D).max_tokens == 4


def test_an_upload_again_changes_no_record(store):
    """An answer may be lost; and the mean of a local job keeps its digest."""
    digest = "ab" * 32
    computed = store.save(sums(), MeanRecord(name="mine", model=MODEL, corpus_sha256=digest))
    content = store.content(computed)
    assert store.upload("mine", content, D) == computed
    assert [record.corpus_sha256 for record in store.records()] == [digest]


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_an_upload_again_mends_a_damaged_file(store, tmp_path, damage):
    record = store.upload("theirs", file_of(), D)
    path = tmp_path / "means" / f"{record.id}.safetensors"
    path.write_bytes(b"") if damage == "cut" else path.unlink()
    assert store.upload("theirs", file_of(), D) == record
    assert store.content(record) == file_of()


def job_mean(store, name, corpus, seed):
    record = MeanRecord(name=name, model=MODEL, prepend_bos=True, corpus_sha256=corpus)
    return store.save(sums(seed=seed), record)


def test_means_of_one_corpus_do_not_merge(store):
    one, again = (job_mean(store, name, "ab" * 32, seed) for seed, name in enumerate(("a", "b")))
    other = job_mean(store, "c", "cd" * 32, 2)
    assert store.merge([one, other], "both").documents == 4
    with pytest.raises(MeanMismatchError, match="means a and b have the same documents"):
        store.merge([one, other, again], "three")


def test_copy_does_not_merge_with_its_corpus(store, tmp_path):
    """Although its record has no digest."""
    elsewhere = MeanStore(tmp_path / "elsewhere")
    theirs = job_mean(elsewhere, "theirs", "ab" * 32, 0)
    copy = store.upload("copy", elsewhere.content(theirs), D)
    ours = job_mean(store, "ours", "ab" * 32, 1)
    assert copy.corpus_sha256 == ""
    with pytest.raises(MeanMismatchError, match="have the same documents"):
        store.merge([copy, ours], "both")
