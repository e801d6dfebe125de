"""A fetch of files in the shape of C4's, and the expected sample."""

import hashlib
import sys

import pyarrow.parquet as pq

from actvec.client.corpora import DataFiles, Sample, WordLimits, fetch_corpus
from actvec.client.documents import open_documents
from tests.client.corpora.c4 import SHARDS, c4_rows

ACTVEC = [sys.executable, "-c", "from actvec.client.cli import main; main()"]
LEAST, MOST = 8, 20


def fetch(folder, path, *, documents=10, seed=0, candidates=None, **options):
    return fetch_corpus(
        DataFiles((f"{folder}/*.json.gz",)),
        path,
        words=WordLimits(LEAST, MOST),
        sample=Sample(documents, seed, candidates),
        **options,
    )


def rank(seed, value):
    return hashlib.sha256(f"{seed}:".encode() + value).digest()


def shards_in_order(seed):
    return sorted(range(SHARDS), key=lambda shard: rank(seed, str(shard).encode()))


def referee(*, documents, seed, candidates):
    """The sample by its definition, in the simplest code."""
    accepted = {}
    for shard in shards_in_order(seed):
        for number, row in enumerate(c4_rows(shard)):
            words = len(row["text"].split())
            if len(accepted) < candidates and LEAST <= words <= MOST:
                accepted.setdefault(row["text"], f"{shard:05d}-{number:07d}")
    digests = {text: hashlib.sha256(text.encode()).digest()[:16] for text in accepted}
    order = sorted(accepted, key=lambda text: rank(seed, digests[text]))
    return [(accepted[text], text) for text in order[:documents]]


def read(path):
    if path.suffix == ".parquet":
        return [(row["id"], row["text"]) for row in pq.read_table(path).to_pylist()]
    return [(document.id, document.text) for document in open_documents(path)]
