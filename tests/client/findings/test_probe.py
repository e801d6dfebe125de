"""Linear probes: what scikit-learn reaches, on documents that were held out."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from actvec.client import InvalidArgument, MissingExtra
from actvec.client.findings import probe, probe_figure, whiten, write_whitening
from tests.client.findings.planted import planted, stored, write_shards


@pytest.fixture(scope="module")
def material():
    """100 documents with labels in layer 4, and hardly in layer 3."""
    array, labels, _ = planted(100)
    return array, labels


@pytest.fixture(scope="module")
def found(material):
    return probe(stored(*material).pick([3, 4]), "label")


def test_probe_reaches_what_scikit_learn_reaches(material, found):
    """Alone, on the same arrays and folds."""
    array, labels = material
    for pool in range(2):
        rows = array[:, 1, pool].astype(float)
        reached = cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression()),
            rows,
            labels,
            cv=StratifiedKFold(5, shuffle=True, random_state=0),
        )
        assert found.accuracy[1, pool] >= reached.mean()


def test_layers_are_told_apart(found):
    assert (found.accuracy[1] > 0.9).all()
    assert (found.auc[1] > 0.95).all()
    assert (found.auc[0] < 0.75).all()
    assert (found.majority, found.folds, found.counts) == (0.5, 5, {"curt": 50, "warm": 50})


def test_noise_is_not_read():
    """In more dimensions than documents a probe that saw its documents would read anything."""
    draw = np.random.default_rng(4)
    noise = stored(draw.normal(size=(40, 1, 1, 60)).astype(np.float32), np.arange(40) % 2)
    found = probe(noise, "label")
    assert_allclose(found.accuracy, 0.5, atol=0.25)


def test_regularization_follows_the_signal(found):
    """For noise, the strongest is chosen."""
    assert found.strength[0].max() < found.strength[1].max()


def test_several_labels_are_read(material):
    third = np.arange(60) % 3
    array = material[0][:60, :1, :1].copy()
    array[:, 0, 0, 7] += 6 * (third == 1)
    array[:, 0, 0, 8] += 6 * (third == 2)
    labels = np.array(["a", "b", "c", None], object)[np.r_[third[:-1], 3]]
    found = probe(stored(array, labels), "label")
    assert found.accuracy[0, 0] > 0.9
    assert found.auc[0, 0] > 0.98
    assert found.counts == {"a": 20, "b": 20, "c": 19}
    assert_allclose(found.majority, 20 / 59)


def test_whitened_vectors_are_read(material):
    array, labels = material
    vectors = stored(array, labels).pick([4], ["last"])
    assert probe(vectors, "label", whiten(stored(array, labels))).accuracy[0, 0] > 0.85


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["a"] * 9, "two labels or more, and these documents have 1"),
        (["a"] * 9 + ["b"] * 3, "4 documents of each label, and 'b' has 3"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(material, labels, reason):
    with pytest.raises(InvalidArgument, match=reason):
        probe(stored(material[0][: len(labels)], labels), "label")


def test_missing_package_is_named(material, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.model_selection", None)
    with pytest.raises(MissingExtra, match=r"sklearn.*pip install 'actvec\[findings\]'"):
        probe(stored(*material), "label")


def test_figure_has_a_line_for_each_pool(found):
    drawing = probe_figure(found)
    lines = [trace for trace in drawing.data if trace.mode == "lines+markers"]
    assert [trace.name for trace in lines] == ["last", "mean"] * 2
    assert_allclose(lines[3].y, found.auc[:, 1])
    assert list(lines[0].x) == ["3", "4"]
    assert drawing.layout.xaxis.type == "category"


def test_command_shows_a_table_and_a_figure(program, material, found, tmp_path):
    array, labels = material
    folder = write_shards(tmp_path / "vectors", array, {"label": labels})
    asked = ("probe", folder, "--by", "label", "--layers", 4, "--pools", "mean")
    figure = tmp_path / "probe.html"
    code, output, _ = program(*asked, "--figure", figure)
    assert code == 0
    [row] = [line.split() for line in output.splitlines() if line.split()[:2] == ["mean", "4"]]
    assert row[2] == f"{found.accuracy[1, 1]:.3f}"
    assert row[5] == f"{found.auc[1, 1]:.3f}"
    assert "has an accuracy of 0.500" in output
    assert "plotly" in figure.read_text()[:100_000]
    write_whitening(tmp_path / "w", whiten(stored(array, labels)))
    code, output, _ = program(*asked, "--json", "--whiten", tmp_path / "w")
    shown = json.loads(output)
    assert (code, shown["layers"], np.shape(shown["auc"])) == (0, ["4"], (1, 1))
