"""Parts of a mean, as Ray's workers make them, and their merge."""

import json

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.client import Client, Document
from actvec.ray import PartialMeans
from actvec.server.errors import MeanMismatchError, RequestError
from actvec.server.means.record import SkippedDocuments
from actvec.shards.merging import PartMerger
from tests.ray.conftest import TEXTS

DOCUMENTS = [*(Document(str(i), text) for i, text in enumerate(TEXTS[:60])), Document("60", " ")]


@pytest.fixture(scope="module")
def sums():
    return PartialMeans(name="bridges", variance=True)


def table(documents):
    return pa.table({"id": [d.id for d in documents], "text": [d.text for d in documents]})


def add(merger, part):
    (row,) = part.to_pylist()
    merger.add(row["part"], [SkippedDocuments(**one) for one in json.loads(row["skipped"])])


@pytest.mark.parametrize("count", [1, 7])
def test_parts_equal_the_servers_mean(sums, demo_server, tmp_path, count):
    merger = PartMerger("bridges")
    for number in reversed(range(count)):
        add(merger, sums(table(DOCUMENTS[number::count])))
    record = merger.write(tmp_path / "mean", "out")
    content = (tmp_path / "mean").read_bytes()
    with Client(demo_server.target) as client:
        made = client.corpus_mean(DOCUMENTS, job="ray-parts", name="bridges", variance=True)
        theirs, ours = load(client.download_mean(made.id).content), load(content)
        # A server accepts the file.
        stored = client.upload_mean(content, name=f"from-ray-{count}")
    assert theirs.keys() == ours.keys()
    assert np.array_equal(ours["counts"], theirs["counts"])
    for name in ("sums", "square_sums"):
        assert_allclose(ours[name], theirs[name], rtol=1e-12, atol=1e-12)
    assert (record.name, record.documents, record.tokens) == ("bridges", 60, made.tokens)
    assert [(one.reason, one.documents) for one in record.skipped] == [("INVALID_ARGUMENT", 1)]
    assert (stored.documents, stored.model) == (60, made.model)


def test_blank_parts_only_count(sums):
    merger = PartMerger("bridges")
    add(merger, sums(table([Document("x", " ")])))
    add(merger, sums(table(DOCUMENTS[:3])))
    add(merger, sums(table([Document("y", "")])))
    total, record = merger.sums()
    assert (total.documents, record.skipped[0].documents) == (3, 2)


def test_no_usable_document_is_refused(sums):
    merger = PartMerger("bridges")
    add(merger, sums(table([Document("x", " ")])))
    with pytest.raises(RequestError, match="no document to average: skipped for INVALID_ARG"):
        merger.sums()


def test_parts_of_other_models_are_refused(sums):
    merger = PartMerger("bridges")
    add(merger, sums(table(DOCUMENTS[:3])))
    with pytest.raises(MeanMismatchError, match="differ in layers; only means of the same"):
        add(merger, PartialMeans(name="bridges", layers=[1])(table(DOCUMENTS[3:6])))
