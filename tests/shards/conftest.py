"""A demo model in this process, and `actvec local` with it."""

import json

import pytest
from click.testing import CliRunner

from actvec.server.config import Limits
from actvec.shards.command import local
from actvec.shards.host import ModelHost
from tests.server.conftest import demo_engine, demo_model, held_engine

TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1760)]

__all__ = ["demo_engine", "demo_model", "held_engine", "host", "make_host"]


def write_corpus(path, count):
    """Write the first texts to a file of JSON lines, one of them blank; return its path."""
    texts = [*TEXTS[:5], " ", *TEXTS[6:count]]
    lines = [json.dumps({"id": f"doc-{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    return path


def run_local(*arguments):
    """Run `actvec local` in this process."""
    ran = CliRunner().invoke(local, [str(argument) for argument in arguments])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran


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
