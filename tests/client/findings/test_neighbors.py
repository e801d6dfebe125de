"""The nearest documents by cosine, and how often they have the same label."""

import json
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actvec.client import Document, InvalidArgument, load
from actvec.client.analysis.similarity import cosines
from actvec.client.findings import (
    center,
    extract_like,
    label_agreement,
    nearest,
    nearest_to,
    neighbor_labels,
    neighbors,
    whiten,
)
from tests.client.findings.conftest import text_of
from tests.client.findings.planted import other, planted, stored


@pytest.fixture
def rows():
    """More rows than are compared at a time."""
    return np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)


def test_nearest_have_the_largest_cosines(rows, monkeypatch):
    monkeypatch.setattr("actvec.client.findings.neighborhood._OTHERS", 70)
    found = nearest(rows, 4)
    matrix = cosines(rows)
    np.fill_diagonal(matrix, -2)
    order = np.argsort(-matrix, axis=1)[:, :4]
    assert_array_equal(found.places, order)
    assert_allclose(found.cosines, np.take_along_axis(matrix, order, axis=1))


def test_vector_finds_its_nearest(rows):
    found = nearest_to(rows[5], rows, 2)
    assert found.places[0, 0] == 5
    assert found.places[0, 1] == nearest(rows).places[5, 0]


def test_few_documents_have_few_neighbors(rows):
    assert nearest(rows[:3], 5).places.shape == (3, 2)
    assert nearest_to(rows[0], rows[:3], 5).places.shape == (1, 3)
    with pytest.raises(InvalidArgument, match="two documents or more, and the vectors are of 1"):
        nearest(rows[:1])


def test_zero_vector_is_nobodys_neighbor(rows):
    rows[7] = 0
    assert 7 not in nearest(rows).places


def test_ties_are_in_order():
    assert_array_equal(
        nearest(np.ones((4, 3)), 3).places, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    )


def test_neighbors_have_the_same_label():
    draw = np.random.default_rng(0)
    labels = np.arange(200) % 2
    rows = draw.normal(size=(200, 40)) + 100 + 12 * labels[:, None] * np.eye(40)[3]
    found = label_agreement(center(rows), labels)
    assert (found.documents, found.share) == (200, 1)
    assert_allclose(found.chance, 99 / 199)
    assert label_agreement(center(rows), draw.permutation(labels)).share < 0.7


def test_agreement_passes_over_documents_without_a_label():
    rows = np.eye(5)[[0, 0, 1, 1, 0]] + 0.01 * np.eye(5)
    found = label_agreement(rows, np.array(["a", "a", "b", "b", None], object))
    assert (found.documents, found.share) == (4, 1)
    assert_allclose(found.chance, 4 / 12)


def test_document_has_neighbors_raw_and_centered(made):
    vectors = load(made)
    tables = neighbors(vectors, "doc-5", 3)
    assert [(one.layer, one.pool) for one in tables] == list(product("12", ["mean", "last"]))
    for (layer, pool), table in zip(np.ndindex(2, 2), tables, strict=True):
        rows = vectors.rows(layer, pool)
        for kind, expected in (("raw", rows), ("centered", center(rows))):
            found = nearest(expected, 3)
            assert [name for name, _ in table.kinds[kind]] == [
                vectors.ids[at] for at in found.places[5]
            ]
            assert_allclose(
                [cosine for _, cosine in table.kinds[kind]], found.cosines[5], atol=1e-6
            )


def test_document_finds_itself_by_its_text(made, client):
    vectors = load(made)
    vector = extract_like(client, Document("text", text_of(5)), vectors.stamp)
    for table in neighbors(vectors, vector, 2):
        assert {kind: found[0][0] for kind, found in table.kinds.items()} == {
            "raw": "doc-5",
            "centered": "doc-5",
        }
        assert table.kinds["raw"][0][1] > 0.9999


def test_centered_vectors_are_of_one_kind():
    array, labels, _ = planted(20)
    vectors = stored(array, labels, stamp=other(corpus_mean_id="m"))
    assert {tuple(one.kinds) for one in neighbors(vectors, "doc-1")} == {("centered",)}


def test_whitened_neighbors_stand_beside_them(made):
    vectors = load(made)
    fitted = whiten(vectors, components=8)
    table = neighbors(vectors, "doc-0", 4, fitted)[3]
    found = nearest(fitted.rows(vectors.rows(1, 1), 1, 1), 4)
    assert [name for name, _ in table.kinds["whitened"]] == [
        vectors.ids[at] for at in found.places[0]
    ]
    labels = neighbor_labels(vectors, "place", fitted)[3]
    assert set(labels.kinds) == {"raw", "centered", "whitened"}


def test_command_shows_them_side_by_side(actvec, made):
    code, output, errors = actvec("neighbors", made, "doc-3", "--layers", 2, "--top", 2)
    assert (code, errors) == (0, "")
    table = [line.split() for line in output.splitlines() if line.startswith("  doc-")]
    expected = [one.kinds for one in neighbors(load(made).pick([2]), "doc-3", 2)]
    for at, row in enumerate(table):
        kinds = expected[at // 2]
        assert [row[0], row[2]] == [kinds[kind][at % 2][0] for kind in ("raw", "centered")]
    assert len(table) == 4
    assert "minus the average of the 24 documents" in output


def test_command_takes_a_text(actvec, made):
    code, output, _ = actvec("neighbors", made, "--text", text_of(9), "--json")
    assert code == 0
    assert [table["kinds"]["raw"][0][0] for table in json.loads(output)] == ["doc-9"] * 4


def test_command_counts_alike_labels(actvec, made, tmp_path):
    whitening = tmp_path / "w.safetensors"
    code, output, _ = actvec("whiten", made, "--components", 8, "--out", whitening)
    assert code == 0
    assert "pca of 24 documents, 128 to 8 dimensions" in output
    code, output, _ = actvec("neighbors", made, "--by", "place", "--whiten", whitening)
    assert code == 0
    assert "by chance: 0.304" in output
    rows = [
        line.split() for line in output.splitlines() if line.split()[:1] in (["mean"], ["last"])
    ]
    expected = neighbor_labels(load(made), "place")
    for row, found in zip(rows, [*expected[::2], *expected[1::2]], strict=True):
        assert row[:2] == [found.pool, found.layer]
        assert row[2] == f"{found.kinds['raw'].share:.3f}"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give one of ID, --text and --by"),
        (["doc-1", "--by", "place"], "give one of ID, --text and --by"),
        (["doc-99"], "no document has the id 'doc-99'; there are 24, the first is 'doc-0'"),
        (["doc-1", "--whiten", "absent"], "absent is not the file of a whitening"),
    ],
)
def test_wrong_questions_are_exit_code_2(actvec, made, arguments, reason):
    code, _, errors = actvec("neighbors", made, *arguments)
    assert code == 2
    assert reason in errors


def test_server_of_other_vectors_is_refused(actvec, made, tmp_path):
    for name in ("vectors-00000.jsonl", "vectors-00000.safetensors"):
        content = (made / name).read_bytes()
        content = content.replace(b'\\"dtype\\": \\"float32\\"', b'\\"dtype\\": \\"float64\\"')
        (tmp_path / name).write_bytes(content)
    code, _, errors = actvec("neighbors", tmp_path, "--text", "A text.")
    assert code == 2
    assert "dtype is 'float64' there and 'float32' here" in errors


def test_zero_vectors_have_no_neighbors():
    """Equal documents are zero once their average is subtracted."""
    array = np.ones((3, 3, 2, 24), np.float32)
    for found in neighbors(stored(array, ["a", "a", "b"]), "doc-0"):
        assert [name for name, _ in found.kinds["raw"]] == ["doc-1", "doc-2"]
        assert found.kinds["centered"] == ()
    shares = neighbor_labels(stored(array, ["a", "a", "b"]), "label")
    assert {found.kinds["centered"].share for found in shares} == {0.0}


def test_document_alone_has_no_neighbors():
    with pytest.raises(InvalidArgument, match="two documents or more, and the vectors are of 1"):
        neighbors(stored(np.ones((1, 3, 2, 24), np.float32), ["a"]), "doc-0")
