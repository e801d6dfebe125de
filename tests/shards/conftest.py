"""A demo model in this process."""

import pytest

from actvec.server.config import Limits
from actvec.shards.host import ModelHost
from tests.server.conftest import demo_engine, demo_model, held_engine

__all__ = ["demo_engine", "demo_model", "held_engine", "host", "make_host"]


@pytest.fixture
def make_host(demo_model, tmp_path):
    """A host of an engine, with steps of few documents, that commits after each document."""

    def make(engine, data_dir=tmp_path, **options):
        limits = Limits(step_tokens=256, commit_seconds=0)
        return ModelHost(engine, demo_model, data_dir, limits=limits, **options)

    return make


@pytest.fixture
def host(make_host, demo_engine):
    return make_host(demo_engine)
