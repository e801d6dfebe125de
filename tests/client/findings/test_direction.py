"""A planted direction comes back, with figures of documents that were held out."""

import csv
import json

import gguf
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors import safe_open
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from actvec.client import FailedPrecondition, InvalidArgument, UnsupportedInput, load
from actvec.client.findings import (
    auc,
    direction,
    label_agreement,
    project,
    read_direction,
    separation,
    write_direction,
    write_gguf,
)
from tests.client.findings.planted import WIDTH, other, planted, stored, write_shards


@pytest.fixture(scope="module")
def material():
    return planted()


@pytest.fixture(scope="module")
def folder(material, tmp_path_factory):
    array, labels, _ = material
    return write_shards(tmp_path_factory.mktemp("vectors"), array, {"label": labels})


def test_planted_direction_comes_back(material, folder):
    array, labels, planted_there = material
    found = direction(load(folder), "label")
    warm, curt = (array[labels == label].astype(float) for label in ("warm", "curt"))
    assert (found.positive, found.negative, found.counts) == ("warm", "curt", (200, 200))
    assert_allclose(found.direction, warm.mean(axis=0) - curt.mean(axis=0), atol=1e-5)
    cosines = (found.unit * planted_there).sum(axis=-1)
    assert (cosines[1] > 0.99).all()
    assert_allclose(found.norm[1], 4, rtol=0.1)


def test_spread_is_around_the_means(material):
    array, labels, _ = material
    found = direction(stored(array, labels), "label")
    for side, label in enumerate(("curt", "warm")):
        of_label = array[labels == label].astype(float)
        distances = np.linalg.norm(of_label - of_label.mean(axis=0), axis=-1)
        assert_allclose(found.spread[side], np.sqrt((distances**2).mean(axis=0)), rtol=1e-5)


def test_layers_separate_as_planted(material):
    array, labels, _ = material
    found = separation(array, labels)
    assert found.folds == 5
    assert (found.auc[1] > 0.99).all()
    assert_allclose(found.d_prime[1], 4, rtol=0.12)
    assert (found.auc[[0, 2]] < 0.75).all()


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_of_other_documents_are_refused(material, shift):
    array, labels, _ = material
    given = np.append(labels[:1], labels) if shift > 0 else labels[1:]
    for figure in (separation, lambda rows, labels: label_agreement(rows[:, 0, 0], labels)):
        with pytest.raises(InvalidArgument, match=f"{400 + shift} labels do not fit 400 vectors"):
            figure(array, given)


def test_missing_labels_are_no_label(material):
    array, labels, _ = material
    known = np.arange(len(labels)) % 5 > 0
    expected = separation(array[known], labels[known])
    for missing in (None, pd.NA, pd.NaT, np.float32("nan")):
        given = [label if here else missing for label, here in zip(labels, known, strict=True)]
        assert_array_equal(separation(array, given).auc, expected.auc)


def test_noise_does_not_separate():
    """In more dimensions than documents the means always differ; held out, they do not."""
    draw = np.random.default_rng(1)
    array = draw.normal(size=(40, 30, 1, 400)).astype(np.float32)
    found = separation(array, np.arange(40) % 2)
    assert_allclose(found.auc.mean(), 0.5, atol=0.05)
    assert_allclose(found.d_prime.mean(), 0, atol=0.2)


def test_area_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    positive, negative = draw.integers(0, 6, (30, 2)), draw.integers(0, 5, (20, 2))
    truth = [1] * 30 + [0] * 20
    expected = [roc_auc_score(truth, np.r_[positive[:, at], negative[:, at]]) for at in range(2)]
    assert_allclose(auc(positive, negative), expected)


def test_layers_are_compared(material):
    array, labels, _ = material
    found = direction(stored(array, labels), "label")
    units = found.unit
    assert found.layer_cosines.shape == (2, 3, 3)
    assert_allclose(found.layer_cosines[1, 0, 2], units[0, 1] @ units[2, 1])
    assert_allclose(np.diagonal(found.layer_cosines, axis1=1, axis2=2), 1)


def test_too_few_documents_have_no_figures(material):
    array, labels, _ = material
    few = [*np.flatnonzero(labels == "warm")[:3], *np.flatnonzero(labels == "curt")[:9]]
    found = direction(stored(array[few], labels[few]), "label")
    assert found.separation.folds == 0
    assert np.isnan(found.separation.auc).all()


def test_scores_lie_around_the_middle(material):
    array, labels, _ = material
    vectors = stored(array, labels)
    found = direction(vectors, "label")
    scores = project(vectors, found)
    assert scores.shape == (400, 3, 2)
    warm, curt = (scores[labels == label].mean(axis=0) for label in ("warm", "curt"))
    assert_allclose(warm, -curt, atol=1e-3)
    assert_allclose(warm - curt, found.norm, rtol=1e-3)
    with pytest.raises(FailedPrecondition, match="hook is 'resid_post' there and 'attn_out' here"):
        project(stored(array, labels, stamp=other(hook="attn_out")), found)
    project(stored(array, labels, stamp=other(actvec_version="9")), found)


@pytest.mark.parametrize(
    ("labels", "asked", "expected"),
    [
        ([True, False, True], {}, ("true", "false", 2, 1)),
        ([0, 1, 1, None], {}, ("1", "0", 2, 1)),
        (["a", "b", "c", "c"], {"positive": "c"}, ("c", "rest", 2, 2)),
        (["a", "b", "c"], {"positive": "c", "negative": "a"}, ("c", "a", 1, 1)),
        (["a", "b"], {"negative": "b"}, ("a", "b", 1, 1)),
    ],
)
def test_labels_are_chosen(material, labels, asked, expected):
    vectors = stored(material[0][: len(labels)], np.array(labels, object))
    found = direction(vectors, "label", **asked)
    assert (found.positive, found.negative, *found.counts) == expected


@pytest.mark.parametrize(
    ("labels", "asked", "reason"),
    [
        (["a", "b", "c"], {}, r"which of the labels .* a \(1\), b \(1\), c \(1\)"),
        (["a", "a"], {}, r"two labels are needed; there are: a \(2\)"),
        (["a", "b"], {"positive": "c"}, "no document has the label 'c'"),
        (["a", "b"], {"positive": "a", "negative": "a"}, "both labels are"),
    ],
)
def test_labels_that_make_no_pair_are_refused(material, labels, asked, reason):
    vectors = stored(material[0][: len(labels)], labels)
    with pytest.raises(InvalidArgument, match=reason):
        direction(vectors, "label", **asked)


def test_many_labels_are_compared_with_the_rest(material):
    array, labels, _ = material
    three = np.where(np.arange(400) % 3 == 0, "other", labels)
    found = separation(array, three)
    each = [separation(array, three, name).auc for name in ("curt", "other", "warm")]
    assert_allclose(found.auc, np.mean(each, axis=0))


def test_file_holds_everything(material, tmp_path):
    array, labels, _ = material
    found = direction(stored(array, labels), "label")
    write_direction(tmp_path / "d.safetensors", found)
    again = read_direction(tmp_path / "d.safetensors")
    assert_array_equal(load_file(tmp_path / "d.safetensors")["direction"], found.direction)
    assert (again.stamp, again.positive, again.counts) == (found.stamp, "warm", (200, 200))
    assert_array_equal(again.separation.auc, found.separation.auc)
    with safe_open(tmp_path / "d.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["actvec"])["stamp"]["layers"] == [3, 4, 5]
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(UnsupportedInput, match="not the file of a direction"):
        read_direction(tmp_path / "other")


@pytest.mark.parametrize(
    ("hook", "layers", "blocks"),
    [
        ("resid_post", (3, 4, 5), (3, 4, 5)),
        ("resid_post", (0, 1, 2), (1, 2)),
        ("resid_pre", (1, 4, 5), (3, 4)),
    ],
)
def test_control_vector_names_the_block_it_follows(material, hook, layers, blocks, tmp_path):
    """`direction.N` is added to the output of block N, which is what block N + 1 reads."""
    array, labels, _ = material
    found = direction(stored(array, labels, stamp=other(hook=hook, layers=layers)), "label")
    assert write_gguf(tmp_path / "d.gguf", found, "mean") == blocks
    read = gguf.GGUFReader(tmp_path / "d.gguf")
    tensors = {tensor.name: tensor.data for tensor in read.tensors}
    assert list(tensors) == [f"direction.{block}" for block in blocks]
    back = 1 if hook == "resid_pre" else 0
    for block in blocks:
        row = found.direction[layers.index(block + back), 1]
        assert_array_equal(tensors[f"direction.{block}"], row)
    assert read.fields["general.architecture"].contents() == "controlvector"
    assert read.fields["controlvector.layer_count"].contents() == len(blocks)
    assert read.fields["controlvector.model_hint"].contents() == "demo"


@pytest.mark.parametrize(
    ("stamp", "pool", "reason"),
    [
        ({}, None, "holds one pool; choose one of: last, mean"),
        ({}, "exp:0.1", "no pool 'exp:0.1'"),
        ({"hook": "mlp_out"}, "last", "vectors are of mlp_out"),
    ],
)
def test_impossible_control_vectors_are_refused(material, stamp, pool, reason, tmp_path):
    array, labels, _ = material
    found = direction(stored(array, labels, stamp=other(**stamp)), "label")
    with pytest.raises(InvalidArgument, match=reason):
        write_gguf(tmp_path / "d.gguf", found, pool)
    assert not list(tmp_path.iterdir())


def test_mean_of_layers_is_no_control_vector(material, tmp_path):
    array, labels, _ = material
    found = direction(stored(array[:, :1], labels, stamp=other(separate_layers=False)), "label")
    with pytest.raises(InvalidArgument, match="of the mean of layers 3, 4, 5"):
        write_gguf(tmp_path / "d.gguf", found, "last")


def test_control_vector_of_several_pools_names_the_option(program, folder, tmp_path):
    paths = ("--out", tmp_path / "d.safetensors", "--gguf", tmp_path / "d.gguf")
    code, _, errors = program("direction", folder, "--by", "label", *paths)
    assert code == 2
    assert "a control vector holds one pool; choose one of: last, mean (--pools)" in errors
    assert not list(tmp_path.iterdir())


def test_command_writes_and_shows_it(program, folder, material, tmp_path):
    files = {name: tmp_path / name for name in ("d.safetensors", "d.gguf", "scores.csv")}
    code, output, errors = program(
        *("direction", folder, "--by", "label", "--pools", "mean", "--out", files["d.safetensors"]),
        *("--gguf", files["d.gguf"], "--project", files["scores.csv"]),
    )
    assert (code, errors) == (0, "")
    assert "warm (200 documents) minus curt (200)" in output
    [row] = [line.split() for line in output.splitlines() if line.split()[:2] == ["mean", "4"]]
    found = read_direction(files["d.safetensors"])
    assert row[-1] == f"{found.separation.auc[1, 0]:.3f}"
    assert found.direction.shape == (3, 1, WIDTH)
    scores = list(csv.DictReader(files["scores.csv"].open()))
    assert (scores[5]["id"], scores[5]["label"]) == ("doc-5", material[1][5])
    expected = project(load(folder).pick(pools=["mean"]), found)[5, 1, 0]
    assert float(scores[5]["layer 4 mean"]) == pytest.approx(expected, abs=1e-5)
    assert "outputs of 3 blocks" in output
    assert not any(line.endswith(" ") for line in output.splitlines())


def test_command_prints_json(program, folder, tmp_path):
    out = tmp_path / "d.safetensors"
    code, output, _ = program(
        *("direction", folder, "--by", "label", "--positive", "curt", "--layers", 4, "--json"),
        *("--out", out),
    )
    shown = json.loads(output)
    assert (code, shown["positive"], shown["layers"]) == (0, "curt", ["4"])
    assert np.shape(shown["auc"]) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--by", "color"], "no column 'color'; kept of the corpus: label. A column must be named"),
        (["--by", "label", "--positive", "cold"], "no document has the label 'cold'"),
        (["--by", "label", "--layers", "7"], "no layer 7; there are: 3, 4, 5"),
    ],
)
def test_wrong_questions_are_exit_code_2(program, folder, arguments, reason, tmp_path):
    code, _, errors = program("direction", folder, *arguments, "--out", tmp_path / "d.safetensors")
    assert code == 2
    assert reason in errors
    assert not list(tmp_path.iterdir())


def test_empty_label_is_a_label():
    found = direction(stored(*planted(40, labels=("", "warm"))[:2]), "label")
    assert (found.positive, found.negative) == ("warm", "")
