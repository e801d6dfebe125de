"""The facts and the numbers that a report's figures show."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from actvec.client import InvalidArgument
from actvec.client.analysis.paired import PairedVectors
from actvec.client.analysis.report import Material, gather
from actvec.client.analysis.report.content import page_content
from actvec.client.findings import label_agreement
from tests.client.analysis.conftest import HOSTILE, content_of


def numbers(rounded):
    """The numbers of an array in a page."""
    places = np.frombuffer(base64.b64decode(rounded["data"]), "<u2")
    return np.where(places == 65535, np.nan, rounded["low"] + rounded["step"] * places)


def test_first_screen_names_model_layers_mean_and_date(page):
    facts = content_of(page)["facts"]
    assert facts["Model"] == "demo"
    assert facts["Layers"] == "4, 5, 6 averaged (resid_post)"
    assert facts["Centered by"].startswith("report: 10 documents, 1")
    assert re.fullmatch(r"holds, worst error \de-\d\d", facts["raw - centered = pooled mean"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["Written"])


def test_identity_that_fails_is_reported(samples):
    pairs, documents, mean = samples
    wrong = [replace(one, values=2 * one.values) for one in pairs.centered]
    found = gather(replace(pairs, centered=tuple(wrong)), documents, mean)
    assert re.match(r"does NOT hold, worst error \d", found.identity)


def test_heatmap_shows_some_of_many():
    vectors = np.random.default_rng(0).normal(size=(600, 1, 1, 8)).astype(np.float32)
    found = page_content(Material(tuple(f"d{number}" for number in range(600)), {"raw": vectors}))
    assert found["shown"] == list(range(0, 600, 3))
    (row,) = found["kinds"]["raw"]
    assert len(numbers(row["cosines"])) == 200 * 199 / 2
    assert sum(row["pairs"]["bars"]) == row["pairs"]["count"] == 600 * 599 / 2


def test_nearest_neighbors_are_those_of_the_cosines(reviews):
    found = page_content(reviews)
    at = 4 * 3 + 1
    rows = reviews.kinds["raw"][:, 4, 1].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows @ rows.T
    np.fill_diagonal(alike, -2)
    record = found["kinds"]["raw"][at]
    near = numbers(record["nearest"]).reshape(60, 5).astype(int)
    assert np.array_equal(near[:, 0], alike.argmax(axis=1))
    assert np.allclose(
        numbers(record["nearness"]).reshape(60, 5)[:, 0], alike.max(axis=1), atol=1e-5
    )


def test_agreement_of_labels_is_that_of_neighbors(reviews):
    labels = reviews.columns[HOSTILE]
    shown = page_content(reviews)["labels"][HOSTILE]
    for kind, vectors in reviews.kinds.items():
        expected = label_agreement(vectors[:, 4, 1], labels)
        shares = np.frombuffer(base64.b64decode(shown["agreement"][kind]), "<f4")
        assert shares[4 * 3 + 1] == pytest.approx(expected.share)
        assert shown["chance"] == pytest.approx(expected.chance)


def test_documents_without_a_label_are_skipped(reviews):
    """Also as neighbors."""
    labels = [None if number % 3 == 0 else number % 2 for number in range(60)]
    shown = page_content(replace(reviews, columns={"label": labels}))["labels"]["label"]
    for kind, vectors in reviews.kinds.items():
        expected = label_agreement(vectors[:, 4, 1], labels)
        shares = np.frombuffer(base64.b64decode(shown["agreement"][kind]), "<f4")
        assert shares[4 * 3 + 1] == pytest.approx(expected.share)
        assert shown["chance"] == pytest.approx(expected.chance) == pytest.approx(19 / 39)


def test_zero_vectors_agree_with_no_neighbor():
    vectors, labels = np.zeros((4, 1, 1, 8), np.float32), ["x", "x", "x", "y"]
    material = Material(("a", "b", "c", "d"), {"raw": vectors}, columns={"label": labels})
    shown = page_content(material)["labels"]["label"]["agreement"]["raw"]
    assert np.frombuffer(base64.b64decode(shown), "<f4") == [0.0]
    assert label_agreement(vectors[:, 0, 0], labels).share == 0


def test_ids_stay_as_many_as_documents():
    ids = ("a", "a (document 3)", "a")
    found = page_content(Material(ids, {"raw": np.ones((3, 1, 1, 8), np.float32)}))["ids"]
    assert (found[:2], len(set(found))) == (["a", "a (document 3)"], 3)


def test_kept_column_replaces_a_fact():
    """As in the tables of `StoredVectors`."""
    vectors, kept = np.ones((2, 1, 1, 8), np.float32), {"tokens": ["few", "many"]}
    material = Material(("a", "b"), {"raw": vectors}, columns=kept, tokens=(3, 5))
    assert page_content(material)["columns"] == kept


def test_zero_and_equal_vectors_are_shown():
    raw = np.ones((3, 1, 1, 8), np.float32)
    raw[0] = 0
    found = page_content(Material(("a", "b", "a"), {"raw": raw, "centered": raw - 1}))
    assert found["ids"] == ["a", "b", "a (document 3)"]
    assert found["kinds"]["centered"][0]["pairs"]["count"] == 0
    json.dumps(found, allow_nan=False)


def test_nothing_is_no_report():
    with pytest.raises(InvalidArgument, match="nothing to report"):
        gather(PairedVectors((), (), ()))
