"""Linear probes: how well labels can be read from the vectors of each layer and pool."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.findings.blocks import rows_of
from actvec.client.findings.labels import as_text
from actvec.client.findings.whitening import Whitening
from actvec.client.records.stamp import Stamp
from actvec.client.stored.vectors import StoredVectors

_FOLDS, _INNER_FOLDS = 5, 3

# Documents of a label that are needed to choose the regularization inside of each fold.
_FEWEST = 4

# From strong regularization to none worth the name, on standardized dimensions.
_STRENGTHS = tuple(10.0**power for power in range(-5, 1))


@dataclass(frozen=True, eq=False)
class Probe:
    """How well logistic regression reads labels from vectors, on documents that were held out.

    Attributes:
        accuracy: `[L, K]` float64, the mean over the folds.
        accuracy_spread: `[L, K]` float64, its standard deviation over the folds.
        auc: `[L, K]` float64, the mean over the folds; of more than two labels, the mean of each
            against the rest.
        strength: `[L, K]` float64, the median of the inverse regularization C that the folds chose.
        by: The column of the labels.
        counts: Documents of each label.
        folds: How many folds there were.
        layers: Names of the layers.
        pools: Names of the pools.
        stamp: What the vectors depend on.
    """

    accuracy: NDArray[np.float64]
    accuracy_spread: NDArray[np.float64]
    auc: NDArray[np.float64]
    strength: NDArray[np.float64]
    by: str
    counts: dict[str, int]
    folds: int
    layers: tuple[str, ...]
    pools: tuple[str, ...]
    stamp: Stamp = field(repr=False)

    @property
    def majority(self) -> float:
        """The accuracy of always guessing the most common label."""
        return max(self.counts.values()) / sum(self.counts.values())


def probe(
    vectors: StoredVectors,
    by: str,
    whitening: Whitening | None = None,
    *,
    jobs: int | None = None,
    on_probe: Callable[[int, int], None] = lambda _done, _total: None,
) -> Probe:
    """Fit logistic regression to each layer and pool, and score it on held-out documents.

    Dimensions are standardized, and the L2 regularization is chosen by cross-validation, both
    inside of each of 5 stratified folds, so that no figure has seen its documents. Memory holds the
    vectors of one layer and pool.

    Examples:
        >>> found = probe(load("vectors"), "label")
        >>> found.layers[int(found.accuracy[:, 0].argmax())], found.majority

    Args:
        vectors: From `load`.
        by: The column of the labels. Documents without a label are skipped.
        whitening: Whitens the vectors first. It knows nothing of labels, but may have been fitted
            to the same documents.
        jobs: Processes that fit at the same time; -1 for one per core. Default: this one alone.
        on_probe: Called with the number of layers and pools done, and their total.

    Raises:
        MissingExtra: scikit-learn is not installed.
        InvalidArgument: there is no such column, there are not two labels, or a label has fewer
            than 4 documents.
        FailedPrecondition: the whitening is of other vectors.
        DataLoss: a number is not finite.
    """
    selection = import_extra("sklearn.model_selection", "findings")
    labels = as_text(vectors.column(by))
    known = np.array([label is not None for label in labels], bool)
    labels = labels[known].astype(str)
    counts = _check(Counter(labels.tolist()))
    fitted = None if whitening is None else whitening.of(vectors.stamp)
    folds = min(_FOLDS, *counts.values())
    model = _model(min(counts.values()) * (folds - 1) // folds, jobs)
    area = "roc_auc" if len(counts) == 2 else "roc_auc_ovr"
    layers, pools, _ = vectors.shape
    figures = np.empty((4, layers, pools))
    for done, (layer, pool) in enumerate(np.ndindex(layers, pools)):
        rows = rows_of(vectors, layer, pool)[known].astype(np.float64)
        scores = selection.cross_validate(
            model,
            rows if fitted is None else fitted.rows(rows, layer, pool),
            labels,
            cv=selection.StratifiedKFold(folds, shuffle=True, random_state=0),
            scoring={"accuracy": "accuracy", "auc": area},
            return_estimator=True,
            error_score="raise",
        )
        accuracy = scores["test_accuracy"]
        strengths = [one.best_params_["logisticregression__C"] for one in scores["estimator"]]
        figures[:, layer, pool] = (
            accuracy.mean(),
            accuracy.std(),
            scores["test_auc"].mean(),
            np.median(strengths),
        )
        on_probe(done + 1, layers * pools)
    accuracies, spreads, areas, chosen = figures
    return Probe(
        accuracies,
        spreads,
        areas,
        chosen,
        by,
        counts,
        folds,
        vectors.layers,
        vectors.pools,
        vectors.stamp,
    )


def probe_figure(found: Probe) -> Any:
    """Accuracy and AUC over the layers, a line for each pool: a `plotly.graph_objects.Figure`.

    Raises:
        MissingExtra: plotly is not installed.
    """
    go = import_extra("plotly.graph_objects", "findings")
    drawing = import_extra("plotly.subplots", "findings").make_subplots(
        1, 2, subplot_titles=("accuracy", "AUC"), shared_xaxes="all"
    )
    colors = import_extra("plotly.colors", "findings").qualitative.Safe
    panels = ((found.accuracy, found.accuracy_spread), (found.auc, None))
    for column, (values, spread) in enumerate(panels, start=1):
        for pool, name in enumerate(found.pools):
            bars = None if spread is None else {"type": "data", "array": spread[:, pool]}
            drawing.add_trace(
                go.Scatter(
                    x=found.layers,
                    y=values[:, pool],
                    error_y=bars,
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    mode="lines+markers",
                    line_color=colors[pool % len(colors)],
                ),
                row=1,
                col=column,
            )
    for column, level in ((1, found.majority), (2, 0.5)):
        drawing.add_hline(level, line_dash="dot", line_color="gray", row=1, col=column)
    drawing.update_xaxes(type="category", title="layer")
    documents = sum(found.counts.values())
    drawing.update_layout(
        title=f"{found.by}: {documents:,} documents, {found.folds} folds", template="plotly_white"
    )
    return drawing


def _check(counts: Counter[str]) -> dict[str, int]:
    if len(counts) < 2:
        raise InvalidArgument(
            f"a probe needs two labels or more, and these documents have {len(counts)}"
        )
    rare = min(counts, key=lambda label: counts[label])
    if counts[rare] < _FEWEST:
        raise InvalidArgument(
            f"a probe needs {_FEWEST} documents of each label, and {rare!r} has {counts[rare]}"
        )
    return dict(sorted(counts.items()))


def _model(fewest: int, jobs: int | None) -> Any:
    """Logistic regression that chooses its regularization.

    Args:
        fewest: Documents of the rarest label that it is fitted to.
        jobs: See `probe`.
    """
    linear = import_extra("sklearn.linear_model", "findings")
    selection = import_extra("sklearn.model_selection", "findings")
    pipeline = import_extra("sklearn.pipeline", "findings")
    scaling = import_extra("sklearn.preprocessing", "findings")
    return selection.GridSearchCV(
        pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(max_iter=2000)),
        {"logisticregression__C": _STRENGTHS},
        scoring="neg_log_loss",
        cv=selection.StratifiedKFold(min(_INNER_FOLDS, fewest), shuffle=True, random_state=0),
        n_jobs=jobs,
        error_score="raise",
    )
