"""A demo model in this process, and documents."""

import json

import pytest

from actvec.server.config import Limits
from actvec.server.engine import memory
from actvec.shards.host import ModelHost
from tests.server.conftest import demo_engine, demo_model, held_engine, measured_bytes
from tests.shards.running import TEXTS

__all__ = ["demo_engine", "demo_model", "held_engine", "host", "make_host"]


@pytest.fixture
def make_host(demo_model, tmp_path, monkeypatch):
    """A host of an engine, with steps of few documents, that commits after each document."""
    monkeypatch.setattr(memory, "token_bytes", measured_bytes)

    def make(engine, data_dir=tmp_path):
        limits = Limits(step_tokens=256, commit_seconds=0)
        return ModelHost(engine, demo_model, data_dir, limits=limits)

    return make


@pytest.fixture
def host(make_host, demo_engine):
    return make_host(demo_engine)


@pytest.fixture
def corpus(tmp_path):
    """Thirty documents, one of them blank."""
    path = tmp_path / "corpus.jsonl"
    texts = [*TEXTS[:5], " ", *TEXTS[6:]]
    lines = [json.dumps({"id": f"doc-{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def loaded_once(monkeypatch, make_host, demo_engine, tmp_path):
    """Commands share one model, commit its sums after each document, and run in this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("actvec.shards.places._COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(ModelHost, "load", lambda _, folder: make_host(demo_engine, folder))
