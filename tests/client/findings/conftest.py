"""A folder that a real server's job wrote, with a column of labels."""

import json

import pytest

from actvec.client import Client
from actvec.client.bulk import Layout, VectorJob
from actvec.client.documents import Columns, open_documents

PLACES = ("harbor", "orchard", "library")


def text_of(number):
    place = PLACES[number % len(PLACES)]
    return f"In {1800 + number} the {place} was sold, and nobody in town knew why."


@pytest.fixture(scope="session")
def labeled(tmp_path_factory):
    """A file of 24 documents."""
    path = tmp_path_factory.mktemp("labeled") / "labeled.jsonl"
    lines = [
        {"id": f"doc-{n}", "text": text_of(n), "place": PLACES[n % len(PLACES)]} for n in range(24)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def made(demo_server, labeled, tmp_path_factory):
    """Its vectors of two layers and two pools, in shards."""
    folder = tmp_path_factory.mktemp("made")
    job = VectorJob(
        open_documents(labeled, columns=Columns(keep=("place",))),
        folder,
        layout=Layout("shards"),
        layers=[1, 2],
        separate=True,
        pools=["mean", "last"],
    )
    with Client(demo_server.target) as client:
        job.run(client)
    return folder
