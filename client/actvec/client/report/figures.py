"""The figures of a report, each made of a `Material` alone."""

import html
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.extras import import_extra
from actvec.client.report.cosines import heatmap_figure, pairs_figure
from actvec.client.report.figure import CENTRED, DIFFERENCE, FOURTH, RAW, Figure
from actvec.client.report.gather import Material
from actvec.pooling import pooling_matrix

_COLOURS = (RAW, CENTRED, DIFFERENCE, FOURTH)

_OUTLIERS = 15


def make_figures(material: Material) -> list[Figure]:
    """The figures that the material is enough for.

    Raises:
        MissingExtra: plotly is not installed.
    """
    go = import_extra("plotly.graph_objects", "report")
    figures = [_norms(go, material)]
    if material.centred is not None and material.predicted is not None:
        figures.append(_alignment(go, material))
    if len(material.labels) > 1:
        figures.append(pairs_figure(go, material))
        figures.append(heatmap_figure(go, material, "raw", material.raw))
        if material.centred is not None:
            figures.append(heatmap_figure(go, material, "centred", material.centred))
    figures.append(_outliers(go, material))
    if material.tokens is not None:
        figures.append(_curves(go, material))
    if material.counts is not None:
        figures.append(_counts(go, material))
    return figures


def _norms(go: Any, material: Material) -> Figure:
    drawing = go.Figure()
    kinds = [("raw", _dots(material.raw), RAW)]
    if material.centred is not None:
        kinds.append(("centred", _dots(material.centred), CENTRED))
        kinds.append(("raw - centred", _dots(_differences(material)), DIFFERENCE))
    for name, squares, colour in kinds:
        norms = np.sqrt(squares)
        middle = np.median(norms, axis=0)
        spread = {
            "type": "data",
            "symmetric": False,
            "array": norms.max(axis=0) - middle,
            "arrayminus": middle - norms.min(axis=0),
        }
        drawing.add_bar(
            name=name,
            x=list(material.pools),
            y=middle,
            error_y=spread if len(norms) > 1 else None,
            marker_color=colour,
            hovertemplate="%{x}: %{y:.4g}<extra>" + name + "</extra>",
        )
    drawing.update_layout(barmode="group", yaxis_title="L2 norm")
    return Figure(
        "norms",
        "Norms",
        "The median over the documents, and from the smallest to the largest.",
        drawing,
    )


def _alignment(go: Any, material: Material) -> Figure:
    assert material.predicted is not None  # noqa: S101 - by the caller
    difference, predicted = _differences(material), material.predicted
    norms = np.sqrt(_dots(difference) * _dots(predicted))
    with np.errstate(invalid="ignore"):
        worst = np.nanmin(_dots(difference, predicted) / norms, axis=0)
    drawing = go.Figure(
        go.Bar(
            x=list(material.pools),
            y=worst,
            text=[f"{value:.6f}" for value in worst],
            textposition="outside",
            marker_color=DIFFERENCE,
        )
    )
    drawing.update_layout(yaxis={"title": "cosine", "range": [min(0.0, worst.min()), 1.12]})
    return Figure(
        "alignment",
        "raw - centred against the pooled mean",
        "The smallest cosine over the documents. Centring is linear: 1, but for rounding, or the"
        " vectors were not centred by this mean.",
        drawing,
    )


def _outliers(go: Any, material: Material) -> Figure:
    share = _shares(material.raw)
    largest = np.argsort(share)[::-1][:_OUTLIERS]
    names = [str(dimension) for dimension in largest]
    drawing = go.Figure()
    drawing.add_bar(name="raw", x=names, y=100 * share[largest], marker_color=RAW)
    if material.centred is not None:
        shares = _shares(material.centred)
        drawing.add_bar(name="centred", x=names, y=100 * shares[largest], marker_color=CENTRED)
    drawing.update_layout(
        barmode="group",
        xaxis={"title": "dimension", "type": "category"},
        yaxis={"title": "% of the squared norm"},
    )
    return Figure(
        "outliers",
        "Outlier dimensions",
        f"The {len(largest)} of {len(share):,} dimensions with the largest part of the squared"
        " norm of the raw vectors, over all pools and documents.",
        drawing,
    )


def _curves(go: Any, material: Material) -> Figure:
    assert material.tokens is not None  # noqa: S101 - by the caller
    tokens = material.tokens[0]
    drawing = go.Figure()
    weights = pooling_matrix(material.mode, tokens)
    for pool, row, colour in zip(material.pools, weights, _COLOURS, strict=False):
        drawing.add_scatter(
            name=pool,
            x=np.arange(1, tokens + 1),
            y=np.where(row > 0, row, np.nan),
            mode="lines" if (row > 0).sum() > 1 else "markers",
            line_color=colour,
            marker={"color": colour, "size": 9},
        )
    drawing.update_layout(
        xaxis_title="token", yaxis={"title": "weight", "type": "log", "exponentformat": "power"}
    )
    label = html.escape(material.labels[0])
    return Figure(
        "curves",
        "Weights of the pools",
        f"Over the {tokens:,} tokens of {label}: how much each token counts.",
        drawing,
    )


def _counts(go: Any, material: Material) -> Figure:
    assert material.counts is not None  # noqa: S101 - by the caller
    positions = np.arange(len(material.counts))
    drawing = go.Figure(
        go.Scatter(x=positions, y=material.counts, mode="lines", line_color=RAW, fill="tozeroy")
    )
    drawing.update_layout(xaxis_title="distance from the end, in tokens", yaxis_title="documents")
    return Figure(
        "counts",
        "Documents behind each position of the mean",
        "Where few documents reach, the mean is noisy.",
        drawing,
    )


def _differences(material: Material) -> NDArray[np.float32]:
    """What centring took away, `[N, K, D]`."""
    assert material.centred is not None  # noqa: S101 - by the caller
    return material.raw - material.centred


def _dots(
    left: NDArray[np.float32], right: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """Products `[N, K]` of vectors `[N, K, D]`, in float64 without a copy of them all."""
    right = left if right is None else right
    products: NDArray[np.float64] = np.einsum("nkd,nkd->nk", left, right, dtype=np.float64)
    return products


def _shares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The part `[D]` of each dimension in the squared norm of all vectors `[N, K, D]`."""
    squares = np.einsum("nkd,nkd->d", vectors, vectors, dtype=np.float64)
    shares: NDArray[np.float64] = squares / squares.sum()
    return shares
