"""Corpora: sampled from a dataset, written to one file, looked at before they are used.

`fetch_corpus` writes a sample of a `HubDataset`, of `DataFiles` or of `PickledTexts`;
`inspect_corpus` tells what a corpus on disk holds.
"""

from actvec.client.corpora.acceptance import Counts, WordLimits
from actvec.client.corpora.fetching import Fetched, fetch_corpus
from actvec.client.corpora.inspection import (
    Bin,
    Extreme,
    Inspection,
    Lengths,
    inspect_corpus,
    inspect_documents,
)
from actvec.client.corpora.sampling import Sample
from actvec.client.corpora.sources import DataFiles, HubDataset, PickledTexts
from actvec.client.corpora.tokenizing import TokenCounter

__all__ = [
    "Bin",
    "Counts",
    "DataFiles",
    "Extreme",
    "Fetched",
    "HubDataset",
    "Inspection",
    "Lengths",
    "PickledTexts",
    "Sample",
    "TokenCounter",
    "WordLimits",
    "fetch_corpus",
    "inspect_corpus",
    "inspect_documents",
]
