"""What people compute from vectors: directions, separation, neighbors, probes, whitening.

    from actvec.client import load
    from actvec.client.findings import direction, write_direction

    found = direction(load("vectors"), "label", "warm", "curt")
    print(found.separation.auc)  # [L, K], on held-out documents
    write_direction("direction.safetensors", found)

`load` reads the vectors that `actvec stream` wrote, with the columns that it kept.
"""

from actvec.client.findings.checking import CheckedRow, FolderCheck, check
from actvec.client.findings.direction_files import read_direction, write_direction, write_gguf
from actvec.client.findings.directions import Direction, direction, project
from actvec.client.findings.neighborhood import (
    Agreement,
    InPool,
    NearestDocuments,
    Neighbors,
    center,
    label_agreement,
    nearest,
    nearest_to,
    neighbor_labels,
    neighbors,
)
from actvec.client.findings.probing import Probe, probe, probe_figure
from actvec.client.findings.remaking import extract_like
from actvec.client.findings.separating import Separation, auc, separation
from actvec.client.findings.whitening import (
    Method,
    Whitening,
    read_whitening,
    whiten,
    write_whitening,
)

__all__ = [
    "Agreement",
    "CheckedRow",
    "Direction",
    "FolderCheck",
    "InPool",
    "Method",
    "NearestDocuments",
    "Neighbors",
    "Probe",
    "Separation",
    "Whitening",
    "auc",
    "center",
    "check",
    "direction",
    "extract_like",
    "label_agreement",
    "nearest",
    "nearest_to",
    "neighbor_labels",
    "neighbors",
    "probe",
    "probe_figure",
    "project",
    "read_direction",
    "read_whitening",
    "separation",
    "whiten",
    "write_direction",
    "write_gguf",
    "write_whitening",
]
