"""Files of earlier versions, which must load, and be written again byte for byte.

Those in `before/` were written when records were protobuf messages.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, MessageToJson, Parse
from hypothesis import given
from hypothesis import strategies as st

from actvec.server.jobs.checkpoint import JobDirectory
from actvec.server.jobs.settings import JobSettings
from actvec.server.means.entry import Entry
from actvec.server.means.format import decode, encode
from actvec.server.means.record import MeanRecord, SkippedDocuments
from actvec.server.means.record_json import decode_record, encode_record
from actvec.server.means.store import MeanStore
from actvec.server.model.stamp import ModelStamp, Truncation
from actvec.server.service.mean_messages import mean_message
from actvec.v1.means_pb2 import CorpusMean

BEFORE = Path(__file__).parent / "before"
MODEL = ModelStamp(
    model="EleutherAI/pythia-70m",
    revision="a39f36b100fe8a5377810d56c3f4789b9c53ac42",
    tokenizer_sha256="5f" * 32,
    dtype="float32",
    layers=(0, 2, 4),
    hook="resid_post",
)
SKIPPED = (
    SkippedDocuments("INVALID_ARGUMENT", 3, 'has 5 tokens; "2" fit: ä', "d7"),
    SkippedDocuments("DATA_LOSS", 1),
)
WRITTEN = MeanRecord(
    name="before",
    model=MODEL,
    prepend_bos=True,
    truncation=Truncation.KEEP_END,
    documents=2,
    tokens=6,
    skipped=SKIPPED,
    d_model=3,
    max_tokens=4,
    has_counts=True,
    has_variance=True,
    actvec_version="0.1.0",
    corpus_sha256="c0" * 32,
)


@pytest.fixture
def store(tmp_path):
    """A copy of an earlier version's store: tests write to it."""
    for path in (BEFORE / "means").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return MeanStore(tmp_path)


def test_old_means_load(store):
    bare, record = store.records()
    sha256 = "0a0f99595c500aed31275608a686d3a9b3511d61abecda326b35a8216d38373a"
    assert record == replace(
        WRITTEN,
        id=sha256[:16],
        sha256=sha256,
        size_bytes=1496,
        created_at=datetime(2026, 11, 29, 7, 37, 49, 124663, UTC),
    )
    assert (bare.name, bare.model, bare.truncation, bare.skipped) == ("bare", None, None, ())
    assert store.load(record).record == WRITTEN
    assert store.find("latest", MODEL) == record


def test_old_means_are_written_alike(store):
    for record in store.records():
        tensors = decode(content := store.content(record))
        assert encode(tensors.accumulator, tensors.record) == content
        entry = (store.directory / f"{record.id}.json").read_bytes()
        assert Entry.decode(entry).encode() == entry


def test_old_jobs_resume():
    job = JobDirectory(BEFORE / "jobs" / "before")
    settings = replace(
        MeanRecord(name="before", model=MODEL, prepend_bos=True, truncation=Truncation.KEEP_END),
        d_model=3,
        has_variance=True,
        actvec_version="a later one",
    )
    assert job.settings() == JobSettings("before", settings).canonical
    progress = job.load()
    assert (progress.next_sequence, progress.corpus) == (6, bytes.fromhex("c0" * 32))
    assert progress.skipped == (replace(SKIPPED[0], documents=2), SKIPPED[1])
    assert progress.accumulator.documents == 2


def test_old_checkpoints_are_written_alike(tmp_path):
    (written,) = (BEFORE / "jobs" / "before").glob("checkpoint-*")
    job = JobDirectory(BEFORE / "jobs" / "before")
    again = JobDirectory(tmp_path / "before")
    again.create(job.settings())
    again.save(job.load())
    assert (tmp_path / "before" / written.name).read_bytes() == written.read_bytes()


TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
STAMPS = st.builds(
    ModelStamp,
    *(TEXTS for _ in range(4)),
    st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple),
    TEXTS,
)
NUMBERS = st.integers(0, 2**64 - 1)
RECORDS = st.builds(
    MeanRecord,
    name=TEXTS,
    size_bytes=NUMBERS,
    model=st.none() | STAMPS,
    prepend_bos=st.booleans(),
    truncation=st.none() | st.sampled_from(Truncation),
    documents=NUMBERS,
    tokens=NUMBERS,
    skipped=st.lists(st.builds(SkippedDocuments, TEXTS, NUMBERS, TEXTS, TEXTS), max_size=2).map(
        tuple
    ),
    d_model=st.integers(0, 2**32 - 1),
    has_counts=st.booleans(),
    created_at=st.none() | st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)),
    corpus_sha256=TEXTS,
)


@given(RECORDS)
def test_records_are_the_contracts_json(record):
    """The store holds the output of `MessageToJson` for the message, which older versions read."""
    values = encode_record(record)
    message = mean_message(record)
    assert Parse(json.dumps(values), CorpusMean()) == message
    theirs = MessageToDict(message)
    assert [*values] == [*theirs]
    assert values | {"createdAt": theirs.get("createdAt")} == theirs | {
        "createdAt": theirs.get("createdAt")
    }
    assert decode_record(json.loads(MessageToJson(message))) == record


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"name": 1},
        {"name": "\ud800"},
        {"prependBos": "true"},
        {"documents": -1},
        {"documents": str(2**64)},
        {"documents": "1_0"},
        {"documents": 1.5},
        {"dModel": 2**32},
        {"dModel": True},
        {"truncation": 2},
        {"skipped": {}},
        {"skipped": ["x"]},
        {"model": "m"},
        {"model": {"layers": [-1]}},
        {"createdAt": "yesterday"},
        {"createdAt": "2026-11-29"},
    ],
)
def test_wrong_values_are_refused(values):
    with pytest.raises(ValueError, match=r"\w"):
        decode_record(values)


def test_later_names_are_ignored():
    values = {"name": "m", "ofLater": {"a": 1}, "truncation": "TRUNCATION_OF_LATER", "model": None}
    assert decode_record(values) == MeanRecord(name="m")
