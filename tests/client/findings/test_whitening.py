"""Whitening, checked against numpy and scikit-learn."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.covariance import ledoit_wolf

from actvec.client import FailedPrecondition, InvalidArgument, UnsupportedInput, load
from actvec.client.findings import read_whitening, whiten, write_whitening
from tests.client.findings.planted import WIDTH, other, planted, stored, write_shards


@pytest.fixture(scope="module")
def array():
    """2,000 vectors with correlated dimensions."""
    array, _, _ = planted(2000)
    mixing = np.random.default_rng(5).normal(size=(WIDTH, WIDTH))
    return (array @ mixing).astype(np.float32)


@pytest.fixture(scope="module")
def vectors(array, tmp_path_factory):
    labels = np.arange(len(array))
    return load(write_shards(tmp_path_factory.mktemp("vectors"), array, {"n": labels}, rows=700))


def by_numpy(rows, shrinkage, method):
    """numpy's whitening of rows, by the singular values of the covariance."""
    rows = rows.astype(float)
    covariance = np.cov(rows, rowvar=False, bias=True)
    level = np.trace(covariance) / WIDTH
    axes, values, _ = np.linalg.svd(
        (1 - shrinkage) * covariance + shrinkage * level * np.eye(WIDTH)
    )
    whitened = (rows - rows.mean(axis=0)) @ axes / np.sqrt(values)
    return whitened @ axes.T if method == "zca" else whitened


@pytest.mark.parametrize("shrinkage", [0, 0.2])
@pytest.mark.parametrize("method", ["pca", "zca"])
def test_it_is_numpys(vectors, array, method, shrinkage):
    fitted = whiten(vectors, method, shrinkage=shrinkage)
    for layer, pool in np.ndindex(3, 2):
        found = fitted.rows(vectors.rows(layer, pool), layer, pool)
        expected = by_numpy(array[:, layer, pool], shrinkage, method)
        if method == "pca":
            # An axis may point either way.
            expected *= np.sign((expected * found).sum(axis=0))
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < 1e-6


def test_covariance_becomes_the_identity(vectors):
    fitted = whiten(vectors, "zca", shrinkage=0)
    whitened = fitted.array(vectors.array)
    assert whitened.shape == vectors.array.shape
    for layer, pool in np.ndindex(3, 2):
        covariance = np.cov(whitened[:, layer, pool], rowvar=False, bias=True)
        assert_allclose(covariance, np.eye(WIDTH), atol=1e-6)


def test_shrinkage_is_ledoit_and_wolfs(vectors, array):
    fitted = whiten(vectors.pick([3]))
    for pool in range(2):
        _, expected = ledoit_wolf(array[:, 0, pool].astype(float))
        assert_allclose(fitted.shrinkage[0, pool], expected, rtol=1e-9)


def test_few_documents_are_shrunk(array):
    few = stored(array[:10], range(10))
    assert np.isfinite(whiten(few).matrix).all()
    with pytest.raises(InvalidArgument, match="10 documents do not vary in 24 of 24 dimensions"):
        whiten(few, shrinkage=0)
    components = whiten(few, shrinkage=0, components=4)
    assert components.array(few.array).shape == (10, 3, 2, 4)


def test_largest_component_comes_first(vectors):
    whole, part = whiten(vectors, shrinkage=0), whiten(vectors, shrinkage=0, components=3)
    assert_allclose(part.matrix, whole.matrix[..., :3])
    lengths = np.linalg.norm(whole.matrix, axis=-2)
    assert (np.diff(lengths, axis=-1) > 0).all()


def test_file_gives_it_back(vectors, tmp_path):
    fitted = whiten(vectors, "zca", shrinkage=0.1)
    write_whitening(tmp_path / "w.safetensors", fitted)
    again = read_whitening(tmp_path / "w.safetensors")
    assert_array_equal(again.matrix, fitted.matrix)
    assert_array_equal(again.mean, fitted.mean)
    assert (again.method, again.documents, again.stamp) == ("zca", 2000, fitted.stamp)
    with pytest.raises(UnsupportedInput, match="not the file of a whitening"):
        read_whitening(tmp_path / "absent")


def test_whitening_is_selected_with_vectors(vectors):
    fitted = whiten(vectors)
    part = vectors.pick([4], ["mean"])
    found = fitted.of(part.stamp).rows(part.rows(0, 0), 0, 0)
    assert_array_equal(found, fitted.rows(vectors.rows(1, 1), 1, 1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layers": (3, 4, 9)}, "layers is"),
        ({"hook": "resid_pre"}, "hook is 'resid_post' there and 'resid_pre' here"),
        ({"revision": "q"}, "revision is"),
    ],
)
def test_other_vectors_are_not_whitened(vectors, changes, reason):
    with pytest.raises(FailedPrecondition, match=reason):
        whiten(vectors).of(other(**changes))


def test_other_shapes_are_refused(vectors):
    """numpy would repeat an axis of 1."""
    fitted, array = whiten(vectors), vectors.array[:2]
    for wrong in (array[:, :1], array[:, :, :1], array[..., :1], array[0], array[:, 0]):
        with pytest.raises(
            InvalidArgument, match=r"takes vectors \[n, L, K, D\] of \[n, 3, 2, 24\]"
        ):
            fitted.array(wrong)
    for wrong in (array[:, 0, 0, :1], array[0, 0, 0], array[:, 0]):
        with pytest.raises(InvalidArgument, match=r"takes vectors \[n, D\] of \[n, 24\]"):
            fitted.rows(wrong, 0, 0)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"method": "cholesky"}, "pca or zca, not 'cholesky'"),
        ({"shrinkage": 1.5}, "from 0 to 1, not 1.5"),
        ({"components": 99}, "width of 24, not 99"),
        ({"components": 3, "method": "zca"}, "zca keeps all components"),
    ],
)
def test_impossible_settings_are_refused(vectors, asked, reason):
    with pytest.raises(InvalidArgument, match=reason):
        whiten(vectors, **asked)
