"""Folders of vectors to load."""

import pytest

from actvec.client import Client
from actvec.client.bulk import Layout, VectorJob
from actvec.client.documents import open_documents
from tests.client.bulk.jobs import FORMATS, write_corpus

ASKED = {"layers": [1, 2], "separate": True, "pools": ["mean", "last"]}


@pytest.fixture(scope="session")
def folders(demo_server, tmp_path_factory):
    """A job's folder in each format, with shards of 16 rows."""
    home = tmp_path_factory.mktemp("folders")
    corpus = write_corpus(home / "corpus.jsonl")
    with Client(demo_server.target) as client:
        for layout in FORMATS:
            files = Layout(layout, rows_per_file=None if layout == "files" else 16)
            VectorJob(open_documents(corpus), home / layout, layout=files, **ASKED).run(client)
    return home
