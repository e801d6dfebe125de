"""Where documents lie in a report."""

import numpy as np
import pytest

from actvec.client.analysis.report.geometry import (
    cluster_order,
    principal_coordinates,
    umap_coordinates,
)


def test_map_is_the_svd_of_directions():
    vectors = np.random.default_rng(0).normal(size=(30, 8)) * np.arange(1, 31)[:, None]
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(directions - directions.mean(axis=0), full_matrices=False)
    coordinates, shares = principal_coordinates(vectors)
    assert np.allclose(np.abs(coordinates), np.abs(left[:, :2] * values[:2]))
    assert np.allclose(shares, values[:2] ** 2 / (values**2).sum())
    assert (coordinates.max(axis=0) >= -coordinates.min(axis=0)).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_map_of_few_documents_is_finite(count):
    for vectors in (np.zeros((count, 4)), np.eye(count, 4)):
        coordinates, shares = principal_coordinates(vectors)
        assert coordinates.shape == (count, 2)
        assert np.isfinite(coordinates).all()
        assert np.isfinite(shares).all()


def test_umap_keeps_groups_apart():
    pytest.importorskip("umap")
    random = np.random.default_rng(0)
    vectors = np.repeat(np.eye(2, 16), 20, axis=0) + 0.05 * random.normal(size=(40, 16))
    first, second = np.split(umap_coordinates(vectors), 2)
    between = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert between > 2 * max(first.std(), second.std())


def test_similar_documents_stand_together():
    groups = np.array([0, 1, 0, 1, 2, 0])
    similarity = (groups[:, None] == groups[None, :]) * 0.9 + 0.1 * np.eye(6)
    ordered = groups[cluster_order(similarity)]
    assert (np.diff(ordered) != 0).sum() == 2
    assert sorted(cluster_order(np.full((4, 4), np.nan))) == [0, 1, 2, 3]
