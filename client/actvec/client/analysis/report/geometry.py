"""Where documents lie: their map, and an order that groups them."""

import numpy as np
from numpy.typing import NDArray

from actvec.client.extras import import_extra
from actvec.client.findings.separating import unit_rows


def principal_coordinates(
    vectors: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A map of vectors `[N, D]` by PCA, each scaled to length 1, so that cosines are distances.

    Returns:
        Coordinates `[N, 2]`, each column with its largest value positive, and the share `[2]` of
        the variance in each.

    Examples:
        >>> _, shares = principal_coordinates(np.array([[5.0, 0], [0, 3], [0, 6]]))
        >>> shares.round(6)
        array([1., 0.])
    """
    rows = unit_rows(vectors)
    rows -= rows.mean(axis=0)
    # Of N x N, because there are fewer documents than dimensions.
    values, directions = np.linalg.eigh(rows @ rows.T)
    values = np.append(np.maximum(values[::-1], 0), 0)[:2]
    directions = np.pad(directions[:, ::-1], ((0, 0), (0, 1)))[:, :2]
    largest = np.abs(directions).argmax(axis=0)
    signs = np.where(directions[largest, (0, 1)] < 0, -1, 1)
    total = np.einsum("nd,nd->", rows, rows)
    return directions * signs * np.sqrt(values), values / (total or 1)


def umap_coordinates(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """A map `[N, 2]` of vectors `[N, D]` that keeps neighbors by cosine together, by UMAP.

    Raises:
        MissingExtra: umap-learn is not installed.
    """
    umap = import_extra("umap", "umap")
    neighbors = min(15, len(vectors) - 1)
    # A seed and one thread, for the same map each time.
    fit = umap.UMAP(n_neighbors=neighbors, metric="cosine", init="random", random_state=0, n_jobs=1)
    coordinates: NDArray[np.float64] = fit.fit_transform(vectors).astype(np.float64)
    return coordinates


def cluster_order(cosines: NDArray[np.floating]) -> list[int]:
    """An order of documents in which similar ones are neighbors, from cosines `[N, N]`.

    It begins with the most similar pair, and the next one is always the one most like the last: a
    greedy path, of `N ** 2` operations.
    """
    alike = np.nan_to_num(cosines.astype(np.float64), nan=-1.0)
    np.fill_diagonal(alike, -np.inf)
    order = [int(np.unravel_index(np.argmax(alike), alike.shape)[0])]
    left = np.ones(len(alike), dtype=bool)
    left[order[0]] = False
    while left.any():
        after = np.where(left, alike[order[-1]], -np.inf)
        # If nothing is alike at all, the first that is left.
        following = int(np.argmax(after)) if np.isfinite(after).any() else int(np.argmax(left))
        order.append(following)
        left[following] = False
    return order
