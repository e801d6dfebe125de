"""Vectors are shared as a dataset of the hub, and come back as they were."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from actvec.client import load
from actvec.client.stored.hub import dataset_card
from tests.client.findings.planted import planted, write_shards

PUSH = """
import sys
from actvec.client import load, push_to_hub
print(push_to_hub(load(sys.argv[1]), "me/vectors", private=True, token="hf_writer"))
"""


@pytest.fixture
def folder(tmp_path):
    array, labels, _ = planted(40)
    return write_shards(tmp_path / "vectors", array, {"label": labels}, rows=25)


@pytest.fixture
def push(local_hub, ask_hub):
    """Push a folder and return the commit.

    In another process, as the hub's library reads its address when it is imported.
    """
    env = ask_hub(local_hub, HF_HUB_DISABLE_XET="1")

    def pushed(folder):
        command = [sys.executable, "-c", PUSH, folder]
        ended = subprocess.run(
            command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=100
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    return pushed


def test_pushed_vectors_come_back(folder, local_hub, push):
    commit = push(folder)
    repository = local_hub.repositories["datasets/me/vectors"]
    assert commit == repository.refs["main"]
    vectors, again = load(folder), load(repository.head() / "data")
    assert_array_equal(again.array, vectors.array)
    assert (again.ids, again.stamp) == (vectors.ids, vectors.stamp)
    assert_array_equal(again.columns["label"], vectors.columns["label"])
    assert_array_equal(again.facts["index"], np.arange(40))
    card = (repository.head() / "README.md").read_text()
    assert card == dataset_card(vectors)


def test_second_push_replaces_the_first(folder, local_hub, push, tmp_path):
    """A file of an earlier push would bring its vectors back among the new ones."""
    array, labels, _ = planted(40)
    push(write_shards(tmp_path / "earlier", array, {"label": labels}, rows=10))
    push(folder)
    again = load(local_hub.repositories["datasets/me/vectors"].head() / "data")
    assert again.ids == load(folder).ids


def test_card_shows_the_stamp(folder):
    card = dataset_card(load(folder))
    assert card.startswith("---\ntags: [actvec, activations]\nconfigs:")
    assert "40 documents, a vector `[L, K, D]` = [3, 2, 24]" in card
    assert '| model | `"demo"` |' in card
    assert "| layers | `[3, 4, 5]` |" in card
