"""Cosines between documents, and `actvec similarity`."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from actvec.client import Client, Document, Failure, load
from actvec.client.analysis.paired import paired_vectors, select
from actvec.client.analysis.similarity import cosines, extreme_pairs, similarities, spread
from actvec.client.bulk import ShardSink
from actvec.client.findings import whiten, write_whitening
from actvec.client.samples import sample_corpus

FIRST, SECOND = "The tide comes back twice a day.", "Bread rises [twice], slowly."
POOLS = ["last", "exp_977", "exp_933", "exp_841"]


@pytest.fixture
def actvec(program, server_with_mean, monkeypatch):
    monkeypatch.setenv("ACTVEC_TARGET", server_with_mean.target)
    monkeypatch.setenv("COLUMNS", "100")
    return program


@pytest.fixture
def client(server_with_mean):
    with Client(server_with_mean.target) as client:
        yield client


def plain_cosine(a, b):
    a, b = a.astype(float), b.astype(float)
    return sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5)


def rows(output):
    """The rows of a printed table whose first cell is a name."""
    return {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.split()}


@settings(deadline=None)
@given(arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32)))
def test_cosine_agrees_with_its_formula(vectors):
    found = cosines(vectors)
    for i in range(3):
        for j in range(3):
            norms = np.linalg.norm(vectors[[i, j]].astype(float), axis=1)
            if norms.all():
                assert_allclose(found[i, j], plain_cosine(vectors[i], vectors[j]), atol=1e-9)
            else:
                assert np.isnan(found[i, j])
    assert np.nanmax(np.abs(found), initial=0) <= 1


def test_the_spread_is_of_different_documents():
    matrix = np.array([[1, 0.5, 0.1], [0.5, 1, 0.3], [0.1, 0.3, 1]])
    found = spread(matrix)
    assert_allclose((found.mean, found.lowest, found.highest), (0.3, 0.1, 0.5))
    with pytest.raises(ValueError, match="one document"):
        spread(matrix[:1, :1])


def test_extreme_pairs_come_first():
    matrix = np.array([[1, 0.5, 0.1], [0.5, 1, 0.3], [0.1, 0.3, 1]])
    assert extreme_pairs(matrix, 2, "closest") == [(0, 1), (1, 2)]
    assert extreme_pairs(matrix, 9, "farthest") == [(0, 2), (1, 2), (0, 1)]
    matrix[0, 1] = matrix[1, 0] = np.nan
    assert extreme_pairs(matrix, 9, "closest") == [(1, 2), (0, 2)]


def test_selection_keeps_the_first_documents():
    failure = Failure("x", "INVALID_ARGUMENT", "broken")
    items = [Document("a", "A"), failure, *(Document(str(n), "B") for n in range(5))]
    selection = select(iter(items), 3)
    assert [document.id for document in selection.documents] == ["a", "0"]
    assert (selection.failures, selection.left_out) == ((replace(failure, index=1),), 4)
    assert selection.indices == (0, 2)


def test_raw_and_centered_rows_agree(client):
    documents = [Document(str(n), text) for n, text in enumerate([FIRST, " ", SECOND] * 4)]
    results = []
    pairs = paired_vectors(
        client, documents, mode="short", center="latest", on_result=results.append
    )
    kept = [document.id for document in documents if document.text.strip()]
    assert [vector.id for vector in pairs.raw] == kept
    assert [vector.id for vector in pairs.centered] == kept
    assert [failure.id for failure in pairs.failures] == ["1", "4", "7", "10"]
    assert len(results) == 2 * len(documents)
    alone = client.extract(SECOND, mode="short", center="latest")
    assert_array_equal(pairs.centered[1].values, alone.values)


def test_each_pool_is_compared_and_the_whole_vector(client):
    documents = [Document("a", FIRST), Document("b", SECOND)]
    pairs = paired_vectors(client, documents, mode="long", center="samples")
    tables = similarities(pairs)
    assert [table.pool for table in tables] == [*POOLS, "all"]
    for table in tables[:-1]:
        for matrix, (a, b) in (
            (table.kinds["raw"], pairs.raw),
            (table.kinds["centered"], pairs.centered),
        ):
            assert_allclose(matrix[0, 1], plain_cosine(a.pools[table.pool], b.pools[table.pool]))
    assert_allclose(
        tables[-1].kinds["raw"][0, 1], plain_cosine(pairs.raw[0].values, pairs.raw[1].values)
    )


def test_two_texts_raw_and_centered_side_by_side(actvec, client):
    code, output, errors = actvec("similarity", FIRST, SECOND, "--center", "latest")
    assert (code, errors.startswith("Centered by samples: 20 documents")) == (0, True)
    assert f'"{SECOND}"' in output
    documents = [Document("a", FIRST), Document("b", SECOND)]
    tables = similarities(paired_vectors(client, documents, mode="long", center="latest"))
    for table in tables:
        assert rows(output)[table.pool] == [
            f"{table.kinds['raw'][0, 1]:.4f}",
            f"{table.kinds['centered'][0, 1]:.4f}",
        ]


def test_whitened_cosines_stand_beside_them(actvec, client, tmp_path):
    documents = [one for one in sample_corpus() if one.id.endswith("_short")]
    with ShardSink(tmp_path / "vectors") as sink:
        for vector in client.stream(documents, mode="long", ordered=True):
            sink.write(vector)
    fitted = whiten(load(tmp_path / "vectors"))
    write_whitening(tmp_path / "w.safetensors", fitted)
    code, output, _ = actvec("similarity", FIRST, SECOND, "--whiten", tmp_path / "w.safetensors")
    pairs = paired_vectors(client, [Document("a", FIRST), Document("b", SECOND)], mode="long")
    a, b = (fitted.array(vector.array[None])[0, 0] for vector in pairs.raw)
    assert code == 0
    for at, pool in enumerate(POOLS):
        assert rows(output)[pool][1] == f"{plain_cosine(a[at], b[at]):.4f}"
    assert rows(output)["all"][1] == f"{plain_cosine(a.ravel(), b.ravel()):.4f}"
    wrong = ("--mode", "short", "--layers", 1, "--whiten", tmp_path / "w.safetensors")
    code, _, errors = actvec("similarity", FIRST, SECOND, *wrong)
    assert code == 2
    assert "the whitening was made of vectors of another stamp: layers is" in errors


def test_raw_cosines_are_called_raw(actvec):
    code, output, errors = actvec("similarity", FIRST, SECOND, "--mode", "short")
    assert code == 0
    assert "centered" not in output
    assert "Raw only; --center" in errors


def test_file_name_stands_for_its_text(actvec, tmp_path):
    for name, text in (("first.txt", FIRST), ("second", SECOND)):
        (tmp_path / name).write_text(text)
    files = [tmp_path / "first.txt", tmp_path / "second"]
    by_name = json.loads(actvec("similarity", *files, "--json")[1])
    by_text = json.loads(actvec("similarity", FIRST, SECOND, "--json")[1])
    assert by_name["pools"] == by_text["pools"]
    assert [document["id"] for document in by_name["documents"]] == ["first.txt", "second"]


def test_bos_is_left_out_on_request(actvec):
    def tokens(*options):
        answer = json.loads(actvec("similarity", FIRST, SECOND, "--json", *options)[1])
        return [document["tokens"] for document in answer["documents"]]

    assert [count + 1 for count in tokens("--no-bos")] == tokens("--bos") == tokens()


def test_text_is_longer_than_file_names(actvec):
    code, output, _ = actvec("similarity", FIRST * 50, f"{FIRST * 50}.", "--mode", "short")
    assert code == 0
    assert float(rows(output)["exp_933"][0]) > 0.9


def test_a_folder_is_compared_with_itself(actvec, client, tmp_path):
    documents = [one for one in sample_corpus() if one.id.endswith("_short")]
    for document in documents:
        (tmp_path / f"{document.id}.txt").write_text(document.text)
    code, output, _ = actvec("similarity", tmp_path, "--center", "latest", "--top", 2, "--json")
    answer = json.loads(output)
    pairs = paired_vectors(client, documents, mode="long", center="latest")
    for shown, table in zip(answer["pools"], similarities(pairs), strict=True):
        assert_allclose(shown["raw"]["cosines"], table.kinds["raw"], atol=1e-12)
        assert_allclose(shown["centered"]["mean"], spread(table.kinds["centered"]).mean)
    assert (code, answer["corpus_mean"]) == (0, client.get_mean("latest").id)

    code, output, _ = actvec("similarity", tmp_path, "--center", "latest", "--top", 2)
    whole = similarities(pairs)[-1]
    (i, j) = extreme_pairs(whole.kinds["centered"], 1, "closest")[0]
    closest = rows(output)[documents[i].id]
    assert code == 0
    assert closest == [
        documents[j].id,
        f"{whole.kinds['raw'][i, j]:.4f}",
        f"{whole.kinds['centered'][i, j]:.4f}",
    ]


def test_many_documents_have_no_matrices(actvec, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"Text {n}."}) + "\n" for n in range(203)))
    answer = json.loads(actvec("similarity", corpus, "--mode", "short", "--json")[1])
    assert answer["matrices_left_out"]
    assert "cosines" not in answer["pools"][0]["raw"]
    assert answer["pools"][0]["raw"]["mean"] > 0
    code, output, errors = actvec("similarity", corpus, "--mode", "short", "--limit", 3)
    assert (code, "3 documents" in output) == (0, True)
    assert "and skipped 200" in errors


def test_failing_documents_are_named(actvec, tmp_path):
    for name, text in (("a", FIRST), ("b", SECOND), ("blank", " ")):
        (tmp_path / f"{name}.txt").write_text(text)
    code, output, errors = actvec("similarity", tmp_path)
    assert code == 1
    assert "A  a" in output
    assert "blank: INVALID_ARGUMENT" in errors


def test_texts_longer_than_the_mean_are_pointed_out(actvec, client):
    client.corpus_mean([FIRST], job="brief")
    code, _, errors = actvec("similarity", f"{FIRST} {FIRST}", FIRST, "--center", "brief")
    client.delete_mean("brief")
    assert code == 0
    assert "Longer than the corpus mean" in errors
    assert "1 of 2 documents" in errors


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing.txt", "text"], "no file missing.txt"),
        (["text", " "], "empty"),
        ([".", "text"], "give it alone"),
        (["absent"], "cannot read absent"),
        (["a", "b", "c"], "quote a text"),
        (["a", "b", "--center", "nobodys"], "no corpus mean 'nobodys'"),
        ([], "two texts or one INPUT"),
        (["latin1.txt", "text"], "not UTF-8"),
    ],
)
def test_what_cannot_be_compared_is_exit_code_2(actvec, arguments, reason, tmp_path, monkeypatch):
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    monkeypatch.chdir(tmp_path)
    code, output, errors = actvec("similarity", *arguments)
    assert (code, output) == (2, "")
    assert reason in errors


def test_single_document_has_no_pair(actvec, tmp_path):
    (tmp_path / "only.txt").write_text(FIRST)
    code, _, errors = actvec("similarity", tmp_path)
    assert code == 2
    assert "a comparison needs two documents with a vector; there are 1" in errors
