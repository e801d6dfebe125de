"""Damaged vectors and files: no figure is computed from them, and the error names them."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from actvec.client import DataLoss, UnsupportedInput, load
from actvec.client.findings import (
    direction,
    label_agreement,
    neighbor_labels,
    neighbors,
    probe,
    read_direction,
    read_whitening,
    separation,
    whiten,
    write_direction,
    write_whitening,
)
from tests.client.findings.planted import STAMP, planted, stored, write_shards

USES = {
    "direction": lambda vectors: direction(vectors, "label"),
    "separation": lambda vectors: separation(vectors, vectors.columns["label"]),
    "probe": lambda vectors: probe(vectors, "label"),
    "whiten": whiten,
    "neighbors": lambda vectors: neighbors(vectors, "doc-3"),
    "neighbor labels": lambda vectors: neighbor_labels(vectors, "label"),
}


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("use", USES)
def test_document_that_is_not_finite_is_named(tmp_path, use, number):
    array, labels, _ = planted(40)
    array[27, 0, 0, 5] = number
    vectors = load(write_shards(tmp_path / "vectors", array, {"label": labels}, rows=25))
    with pytest.raises(DataLoss, match="the vector of document 'doc-27' has numbers that are not"):
        USES[use](vectors)


def test_row_that_is_not_finite_is_named():
    array, labels, _ = planted(40)
    array[27, 0, 0, 5] = np.nan
    for use in (label_agreement, separation):
        rows = array[:, 0, 0] if use is label_agreement else array
        with pytest.raises(DataLoss, match="the vector of row 27 has numbers that are not finite"):
            use(rows, labels)


@pytest.mark.parametrize(
    "about",
    [[], {}, {"stamp": {}}, {"stamp": "x"}, {"stamp": STAMP.to_dict()}],
    ids=["list", "empty", "no fields", "text", "stamp alone"],
)
def test_metadata_of_others_are_refused(tmp_path, about):
    vectors = stored(*planted(40)[:2])
    path = tmp_path / "found.safetensors"
    for write, read, found in (
        (write_direction, read_direction, direction(vectors, "label")),
        (write_whitening, read_whitening, whiten(vectors)),
    ):
        write(path, found)
        save_file(load_file(path), path, {"actvec": json.dumps(about)})
        with pytest.raises(UnsupportedInput, match="is not the file of a"):
            read(path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda one: one | {"matrix": one["matrix"][:, :, 1:].copy()}, "does not take vectors"),
        (lambda one: {name: part[:1].copy() for name, part in one.items()}, "layers and pools"),
        (lambda one: one | {"mean": one["mean"] * np.nan}, "numbers that are not finite"),
    ],
    ids=["width", "layers", "finite"],
)
def test_whitening_that_does_not_fit_is_refused(tmp_path, spoil, reason):
    path = tmp_path / "found.safetensors"
    write_whitening(path, whiten(stored(*planted(40)[:2])))
    about = {"method": "pca", "documents": 40, "stamp": STAMP.to_dict()}
    save_file(spoil(load_file(path)), path, {"actvec": json.dumps(about)})
    with pytest.raises(UnsupportedInput, match=reason):
        read_whitening(path)
