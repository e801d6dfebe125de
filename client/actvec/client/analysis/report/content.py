"""The numbers and texts of a report, as its page reads them."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actvec.client.analysis.report.geometry import (
    cluster_order,
    principal_coordinates,
    umap_coordinates,
)
from actvec.client.analysis.report.material import Material
from actvec.client.analysis.similarity import cosines
from actvec.client.findings import Neighbors, label_agreement, nearest, separation
from actvec.client.findings.labels import as_text
from actvec.pooling import pooling_matrix

_NEIGHBORS = 5
_OUTLIERS = 15
_BINS = 50
# A column of more different values is no label.
_GROUPS = 10
# Characters of each document that its hover text shows.
_EXCERPT = 280
# A text longer than this is cut at its start, whose weights are smallest.
_SHADED_CHARACTERS = 6000
# The pool whose weights shade the text: that of mode short.
_SHADED = "exp_933"
_NAN = 65535
# In a heatmap of more documents each is one pixel.
_HEATMAP = 250
# Cosines of all heatmaps together, which bound the size of the page: 2 bytes each.
_CELLS = 1_000_000


def page_content(material: Material, *, umap: bool = False) -> dict[str, Any]:
    """What the page shows, as JSON takes it; see `_packed` and `_rounded` for arrays.

    `kinds` has for raw and centered vectors a record per row, layer by layer and pool by pool.
    """
    count, *rows = material.shape
    shown = _shown(material)
    near = {
        name: [_nearest(vectors[:, *at]) for at in np.ndindex(*rows)]
        for name, vectors in material.kinds.items()
    }
    kinds = {
        name: [
            _row(vectors[:, *at], near[name][number], shown, umap=umap)
            for number, at in enumerate(np.ndindex(*rows))
        ]
        for name, vectors in material.kinds.items()
    }
    width = next(iter(material.kinds.values())).shape[-1]
    return {
        "facts": _facts(material),
        "ids": _distinct(material.ids),
        "texts": list(map(_excerpt, material.texts)),
        "columns": _columns(material),
        "layers": [f"layer {layer}" for layer in material.layers],
        "pools": list(material.pools),
        "kinds": kinds,
        "shown": shown.tolist(),
        "order": _order(material, shown),
        "norms": _norms(material),
        "outliers": [
            _outliers({name: one[:, *at] for name, one in material.kinds.items()})
            for at in np.ndindex(*rows)
        ],
        "labels": _labels(material, near),
        "curves": _curves(material),
        "counts": None if material.counts is None else _packed(material.counts),
        "shaded": _shaded(material),
        "missing": _missing(material),
        "stamp": {} if material.stamp is None else material.stamp.to_dict(),
        "size": f"{count:,} document{'s' * (count != 1)}, {rows[0] * rows[1]:,} x {width:,} numbers"
        " each",
    }


def _packed(values: ArrayLike) -> str:
    """The base64 of an array's float32."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _rounded(values: NDArray[Any]) -> dict[str, Any]:
    """An array in half the bytes: `low + step * n` for each uint16 n, and NaN for the largest.

    Whole numbers from 0 to 65534 are exact.
    """
    finite = values[np.isfinite(values)]
    low = high = 0.0
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
    if np.issubdtype(values.dtype, np.integer):
        low, high = 0.0, max(high, _NAN - 1.0)
    step = (high - low) / (_NAN - 1) or 1.0
    places = np.nan_to_num(np.rint((values - low) / step), nan=_NAN)
    data = base64.b64encode(places.astype("<u2").tobytes()).decode()
    return {"low": low, "step": step, "data": data}


def _excerpt(text: str) -> str:
    line = " ".join(text[: 4 * _EXCERPT].split())
    return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 1]}…"


def _distinct(ids: tuple[str, ...]) -> list[str]:
    """Ids that differ: one that came before has its document's number after it."""
    shown: dict[str, None] = {}
    for number, name in enumerate(ids, start=1):
        distinct = name
        while distinct in shown:
            distinct += f" (document {number})"
        shown[distinct] = None
    return list(shown)


def _facts(material: Material) -> dict[str, str]:
    stamp = material.stamp
    facts = {}
    if stamp is not None:
        numbers = ", ".join(map(str, stamp.layers))
        many = len(stamp.layers) > 1 and not stamp.separate_layers
        facts["Model"] = stamp.model
        facts["Layers"] = f"{numbers}{' averaged' if many else ''} ({stamp.hook})"
    if material.centering:
        facts["Centered by"] = material.centering
    if material.identity:
        facts["raw - centered = pooled mean"] = material.identity
    facts["Written"] = f"{datetime.now(UTC):%Y-%m-%d}"
    return facts


def _columns(material: Material) -> dict[str, list[Any]]:
    columns = {name: list(values) for name, values in material.columns.items()}
    if material.tokens:
        columns.setdefault("tokens", list(material.tokens))
    return columns


def _shown(material: Material) -> NDArray[np.int64]:
    """Numbers of the documents in the heatmaps: all, or as many as a page holds, evenly."""
    count, layers, pools = material.shape
    rows = layers * pools * len(material.kinds)
    most = min(_HEATMAP, max(2, int((2 * _CELLS / rows) ** 0.5)))
    return np.arange(0, count, -(-count // most))


def _order(material: Material, shown: NDArray[np.int64]) -> list[int]:
    """An order of the documents in the heatmaps that groups them, in all rows together."""
    vectors = list(material.kinds.values())[-1][shown]
    return cluster_order(cosines(vectors.reshape(len(shown), -1)))


def _row(
    vectors: NDArray[np.float32], near: Neighbors, shown: NDArray[np.int64], *, umap: bool
) -> dict[str, Any]:
    """What the figures show of vectors `[N, D]` of one layer and pool."""
    alike = cosines(vectors)
    coordinates, shares = principal_coordinates(vectors)
    pairs = alike[np.triu_indices(len(alike), 1)]
    pairs = pairs[np.isfinite(pairs)]
    bars, edges = np.histogram(pairs, bins=_BINS)
    return {
        "map": _rounded(coordinates),
        "umap": _rounded(umap_coordinates(vectors)) if umap and len(vectors) > 3 else None,
        "shares": _packed(shares),
        "nearest": _rounded(near.places),
        "nearness": _rounded(near.cosines),
        "cosines": _rounded(alike[np.ix_(shown, shown)][np.triu_indices(len(shown), 1)]),
        "pairs": {
            "count": len(pairs),
            "median": float(np.median(pairs)) if len(pairs) else None,
            "bars": bars.tolist(),
            "edges": [edges[0], edges[-1]],
        },
    }


def _nearest(vectors: NDArray[np.float32]) -> Neighbors:
    if len(vectors) < 2:
        return Neighbors(np.empty((1, 0), np.int64), np.empty((1, 0)))
    found = nearest(vectors, _NEIGHBORS)
    return replace(found, cosines=np.where(np.isfinite(found.cosines), found.cosines, np.nan))


def _labels(material: Material, near: Mapping[str, Sequence[Neighbors]]) -> dict[str, Any]:
    """How well the values of each column that names a few groups separate, by row."""
    _, *rows = material.shape
    last = list(material.kinds.values())[-1]
    found = {}
    for name, values in material.columns.items():
        texts = [text for text in as_text(values) if text is not None]
        if not 2 <= len(set(texts)) <= min(_GROUPS, len(texts) - 1):
            continue
        separated = separation(last, values)
        agreements = {
            kind: [
                label_agreement(vectors[:, *at], values, near[kind][number])
                for number, at in enumerate(np.ndindex(*rows))
            ]
            for kind, vectors in material.kinds.items()
        }
        found[name] = {
            "auc": _packed(separated.auc) if separated.folds else None,
            "separation": _packed(separated.d_prime),
            "agreement": {
                kind: _packed([one.share for one in made]) for kind, made in agreements.items()
            },
            "chance": next(iter(agreements.values()))[0].chance,
        }
    return found


def _norms(material: Material) -> dict[str, str]:
    """The smallest, median and largest norm `[3, L * K]` over the documents."""
    kinds = dict(material.kinds)
    if {"raw", "centered"} <= set(kinds):
        kinds["raw - centered"] = kinds["raw"] - kinds["centered"]
    found = {}
    for name, vectors in kinds.items():
        squares = np.einsum("nlkd,nlkd->nlk", vectors, vectors, dtype=np.float64)
        norms = np.sqrt(squares).reshape(len(vectors), -1)
        found[name] = _packed([norms.min(axis=0), np.median(norms, axis=0), norms.max(axis=0)])
    return found


def _outliers(kinds: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """The dimensions with the largest part of the first kind's squared norm `[N, D]`, in %."""
    parts = {}
    for name, vectors in kinds.items():
        # Whitened dimensions are others.
        if name == "whitened":
            continue
        squares = np.einsum("nd,nd->d", vectors, vectors, dtype=np.float64)
        parts[name] = 100 * squares / (squares.sum() or 1)
    largest = np.argsort(next(iter(parts.values())))[::-1][:_OUTLIERS]
    return {
        "dimensions": largest.tolist(),
        **{name: _packed(part[largest]) for name, part in parts.items()},
    }


def _curves(material: Material) -> dict[str, Any] | None:
    """The weights of the pools over the tokens of the first document."""
    if not (material.tokens and material.curves):
        return None
    weights = pooling_matrix(material.curves, material.tokens[0])
    return {"pools": list(material.curves), "weights": [_packed(row) for row in weights]}


def _shaded(material: Material) -> dict[str, Any] | None:
    """The first document's words, each with the weight of its tokens from 0 to 1."""
    if not (material.tokens and any(material.texts[:1])):
        return None
    text, tokens = material.texts[0], material.tokens[0]
    weights = pooling_matrix([_SHADED], tokens)[0]
    start = max(0, len(text) - _SHADED_CHARACTERS)
    words = []
    position = start
    for word in text[start:].split(" "):
        token = min(int(position / max(len(text), 1) * tokens), tokens - 1)
        words.append([word, round(float(weights[token] / weights.max()), 2)])
        position += len(word) + 1
    return {"pool": _SHADED, "cut": start > 0, "words": words}


def _missing(material: Material) -> list[str]:
    gaps = []
    if "centered" not in material.kinds:
        gaps.append("There are no centered vectors, so nothing is compared with them.")
    elif not material.identity and not material.centering:
        gaps.append("The report has no corpus mean, so the vectors were not checked against it.")
    if len(material.ids) == 1:
        gaps.append("A single document has no cosines and no neighbors.")
    return gaps
