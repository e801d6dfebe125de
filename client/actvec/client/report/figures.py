"""The figures of a report, each made of a `Material` alone."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.extras import import_extra
from actvec.client.report.gather import Material
from actvec.client.similarity import cosines
from actvec.pooling import pooling_matrix

# Okabe and Ito's colours, which people with any kind of colour blindness tell apart.
_RAW, _CENTRED, _DIFFERENCE, _FOURTH = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
_COLOURS = (_RAW, _CENTRED, _DIFFERENCE, _FOURTH)

# Labels beyond this are cut; hovering shows them whole.
_LABEL = 24
# Ticks of a heatmap beyond this would overlap.
_TICKS = 40
_OUTLIERS = 15


@dataclass(frozen=True)
class Figure:
    """A drawing and what it shows.

    Attributes:
        name: Names its file and its place in the page.
        title: What it is.
        caption: How to read it.
        drawing: A `plotly.graph_objects.Figure`.
    """

    name: str
    title: str
    caption: str
    drawing: Any


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
        figures.append(_heatmap(go, material, "raw", material.raw))
        if material.centred is not None:
            figures.append(_heatmap(go, material, "centred", material.centred))
    figures.append(_outliers(go, material))
    if material.tokens is not None:
        figures.append(_curves(go, material))
    if material.counts is not None:
        figures.append(_counts(go, material))
    return figures


def cluster_order(similarity: NDArray[np.floating]) -> list[int]:
    """An order of documents in which those alike are neighbours.

    From the pair that is most alike on, the next one is always the one most like the last: a greedy
    path, of `N ** 2` operations.
    """
    alike = np.nan_to_num(similarity.astype(np.float64), nan=-1.0)
    np.fill_diagonal(alike, -np.inf)
    order = [int(np.unravel_index(np.argmax(alike), alike.shape)[0])]
    left = np.ones(len(alike), dtype=bool)
    left[order[0]] = False
    while left.any():
        after = np.where(left, alike[order[-1]], -np.inf)
        # Where nothing is alike at all, the first that is left.
        following = int(np.argmax(after)) if np.isfinite(after).any() else int(np.argmax(left))
        order.append(following)
        left[following] = False
    return order


def _norms(go: Any, material: Material) -> Figure:
    drawing = go.Figure()
    kinds: list[tuple[str, NDArray[np.float32], str]] = [("raw", material.raw, _RAW)]
    if material.centred is not None:
        kinds.append(("centred", material.centred, _CENTRED))
        kinds.append(("raw - centred", material.raw - material.centred, _DIFFERENCE))
    for name, vectors, colour in kinds:
        norms = np.linalg.norm(vectors.astype(np.float64), axis=2)
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
    assert material.centred is not None  # noqa: S101 - by the caller
    assert material.predicted is not None  # noqa: S101 - by the caller
    difference = (material.raw - material.centred).astype(np.float64)
    predicted = material.predicted.astype(np.float64)
    norms = np.linalg.norm(difference, axis=2) * np.linalg.norm(predicted, axis=2)
    with np.errstate(invalid="ignore"):
        worst = np.nanmin((difference * predicted).sum(axis=2) / norms, axis=0)
    drawing = go.Figure(
        go.Bar(
            x=list(material.pools),
            y=worst,
            text=[f"{value:.6f}" for value in worst],
            textposition="outside",
            marker_color=_DIFFERENCE,
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


def _heatmap(go: Any, material: Material, kind: str, vectors: NDArray[np.float32]) -> Figure:
    labels = _labels(material.labels)
    matrices = [cosines(vectors[:, number]) for number in range(len(material.pools))]
    order = cluster_order(cosines(material.raw.reshape(len(labels), -1)))
    drawing = go.Figure()
    for number, (pool, matrix) in enumerate(zip(material.pools, matrices, strict=True)):
        # A colour for each cosine there is: raw ones are all near 1, and would be one colour.
        lowest = float(np.nanmin(matrix))
        drawing.add_heatmap(
            name=pool,
            z=matrix,
            x=labels,
            y=labels,
            visible=number == len(material.pools) - 1 if len(matrices) > 1 else True,
            colorscale="RdBu_r" if lowest < 0 else "Viridis",
            zmin=-1 if lowest < 0 else lowest,
            zmax=1,
            colorbar_title="cosine",
            hovertemplate="%{y}<br>%{x}<br>cosine %{z:.4f}<extra>" + pool + "</extra>",
        )
    ticks: dict[str, Any] = {
        "showticklabels": len(labels) <= _TICKS,
        "tickangle": -60,
        "showgrid": False,
        "categoryorder": "array",
    }
    drawing.update_layout(
        xaxis={**ticks, "categoryarray": [labels[i] for i in order]},
        yaxis={
            **ticks,
            "tickangle": 0,
            "categoryarray": [labels[i] for i in order],
            "autorange": "reversed",
            "scaleanchor": "x",
            "constrain": "domain",
        },
        height=max(520, min(1000, 280 + 22 * len(labels))),
        updatemenus=[_order_switch(labels, order), *_pool_switch(material.pools)],
        margin_t=90,
    )
    return Figure(
        f"cosines_{kind}",
        f"Cosines between documents, {kind}",
        "Hover for a pair. Documents that are alike stand together, or in their own order.",
        drawing,
    )


def _order_switch(labels: list[str], order: list[int]) -> dict[str, Any]:
    def button(name: str, wanted: Sequence[str]) -> dict[str, Any]:
        change = {"xaxis.categoryarray": wanted, "yaxis.categoryarray": wanted}
        return {"label": name, "method": "relayout", "args": [change]}

    return {
        "buttons": [button("alike", [labels[i] for i in order]), button("own order", labels)],
        "type": "buttons",
        "direction": "right",
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
    }


def _pool_switch(pools: Sequence[str]) -> list[dict[str, Any]]:
    if len(pools) < 2:
        return []
    buttons = [
        {
            "label": pool,
            "method": "restyle",
            "args": [{"visible": [other == pool for other in pools]}],
        }
        for pool in pools
    ]
    return [
        {
            "buttons": buttons,
            "type": "buttons",
            "direction": "right",
            "active": len(pools) - 1,
            "x": 1,
            "xanchor": "right",
            "y": 1.02,
            "yanchor": "bottom",
        }
    ]


def _outliers(go: Any, material: Material) -> Figure:
    raw = material.raw.astype(np.float64)
    share = (raw**2).sum(axis=(0, 1)) / (raw**2).sum()
    largest = np.argsort(share)[::-1][:_OUTLIERS]
    names = [str(dimension) for dimension in largest]
    drawing = go.Figure()
    drawing.add_bar(name="raw", x=names, y=100 * share[largest], marker_color=_RAW)
    if material.centred is not None:
        centred = material.centred.astype(np.float64)
        shares = (centred**2).sum(axis=(0, 1)) / (centred**2).sum()
        drawing.add_bar(name="centred", x=names, y=100 * shares[largest], marker_color=_CENTRED)
    drawing.update_layout(
        barmode="group",
        xaxis={"title": "dimension", "type": "category"},
        yaxis={"title": "% of the squared norm"},
    )
    return Figure(
        "outliers",
        "Outlier dimensions",
        f"The {len(largest)} of {raw.shape[2]:,} dimensions with the largest part of the squared"
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
        go.Scatter(x=positions, y=material.counts, mode="lines", line_color=_RAW, fill="tozeroy")
    )
    drawing.update_layout(xaxis_title="distance from the end, in tokens", yaxis_title="documents")
    return Figure(
        "counts",
        "Documents behind each position of the mean",
        "Where few documents reach, the mean is noisy.",
        drawing,
    )


def _labels(labels: Sequence[str]) -> list[str]:
    """Labels to print: cut, escaped, and each different."""
    shown: dict[str, None] = {}
    for number, label in enumerate(labels):
        cut = label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
        escaped = html.escape(cut)
        shown[escaped if escaped not in shown else f"{escaped} ({number})"] = None
    return list(shown)
