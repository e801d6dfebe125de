"""Figures of the cosines between documents."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.report.figure import CENTRED, RAW, Figure
from actvec.client.report.gather import Material
from actvec.client.similarity import cosines

# Labels beyond this are cut; hovering shows them whole.
_LABEL = 24
# Ticks of a heatmap beyond this would overlap.
_TICKS = 40
# Documents of a heatmap beyond this are a pixel each, and the page too large for a browser.
_HEATMAP = 250


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


def pairs_figure(go: Any, material: Material) -> Figure:
    """How the cosines of all pairs of documents are spread, in the last pool."""
    drawing = go.Figure()
    count = len(material.labels)
    above = np.triu_indices(count, 1)
    medians = []
    kinds = [("raw", material.raw, RAW)]
    if material.centred is not None:
        kinds.append(("centred", material.centred, CENTRED))
    for name, vectors, colour in kinds:
        found = cosines(vectors[:, -1])[above]
        found = found[np.isfinite(found)]
        bars, edges = np.histogram(found, bins=100, range=(-1, 1))
        drawing.add_bar(
            name=name,
            x=(edges[:-1] + edges[1:]) / 2,
            y=bars,
            width=edges[1] - edges[0],
            marker_color=colour,
            opacity=0.75,
            hovertemplate="cosine %{x:.2f}: %{y:,} pairs<extra>" + name + "</extra>",
        )
        if len(found):
            medians.append(f"{name} {np.median(found):.3f}")
    drawing.update_layout(barmode="overlay", xaxis_title="cosine", yaxis_title="pairs")
    return Figure(
        "pairs",
        "Cosines of all pairs",
        f"All {len(above[0]):,} pairs of the {count:,} documents, in {material.pools[-1]}."
        f" Medians: {', '.join(medians)}.",
        drawing,
    )


def heatmap_figure(go: Any, material: Material, kind: str, vectors: NDArray[np.float32]) -> Figure:
    """The cosine of each two documents, in each pool."""
    count = len(material.labels)
    step = -(-count // _HEATMAP)
    labels = _labels(material.labels[::step])
    vectors = vectors[::step]
    matrices = [cosines(vectors[:, number]) for number in range(len(material.pools))]
    order = cluster_order(cosines(material.raw[::step].reshape(len(labels), -1)))
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
        "Hover for a pair. Documents that are alike stand together, or in their own order."
        + (f" One document in {step} is shown, {len(labels)} of {count:,}." if step > 1 else ""),
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


def _labels(labels: Sequence[str]) -> list[str]:
    """Labels to print: cut, escaped, and each different."""
    shown: dict[str, None] = {}
    for number, label in enumerate(labels):
        cut = label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
        escaped = html.escape(cut)
        shown[escaped if escaped not in shown else f"{escaped} ({number})"] = None
    return list(shown)
