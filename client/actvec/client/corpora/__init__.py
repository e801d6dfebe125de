"""Corpora: samples of datasets, written to one file and inspected before use.

`fetch_corpus` writes a sample of a `HubDataset` or of `DataFiles`; `inspect_corpus` describes a
corpus on disk.
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
from actvec.client.corpora.sources import DataFiles, HubDataset
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
    "Sample",
    "TokenCounter",
    "WordLimits",
    "fetch_corpus",
    "inspect_corpus",
    "inspect_documents",
]
