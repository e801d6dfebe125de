"""A small corpus, its vectors, and a check of a folder that holds them."""

import tempfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from actvec.client import Client, Vector
from tests.client.bulk.jobs import BLANK, COUNT, failures_of, text_of, write_corpus
from tests.client.bulk.saved import read_back


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl")


@pytest.fixture(scope="module")
def expected(demo_server):
    """The vectors of the corpus, each computed alone: index -> float16 `[D]`."""
    with Client(demo_server.target) as client:
        results = client.stream([text_of(number) for number in range(COUNT)], mode="short")
        return {r.index: r.values.astype(np.float16) for r in results if isinstance(r, Vector)}


@pytest.fixture
def check_complete(expected):
    """Check a folder against the corpus: each document once, as its vector or its failure."""

    def check(folder, layout="shards"):
        saved = read_back(folder, layout)
        assert sorted(vector.index for vector in saved) == sorted(expected)
        for vector in saved:
            assert vector.id == f"doc-{vector.index}"
            assert_array_equal(vector.values, expected[vector.index])
        assert sorted(failure["index"] for failure in failures_of(folder)) == list(BLANK)
        assert not list(folder.rglob("*.tmp"))

    return check


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Where the local copies of remote folders lie."""
    home = tmp_path / "copies"
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    return home
