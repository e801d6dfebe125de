"""A Ray cluster on this machine, for the whole run; started by the first test that needs it."""

import json
import os

import pytest

from actvec.client.documents import Columns, open_documents

# Ray reads these at its import. Tests contact nobody, and leave no token in the home directory.
os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}

TEXTS = [f"In {year} the bridge was closed for {year % 7} repairs." for year in range(1700, 1900)]


@pytest.fixture(scope="session")
def cluster():
    """Ray, with CPUs for three workers."""
    import ray  # noqa: PLC0415 - after the variables

    ray.init(
        num_cpus=6, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture
def corpus(tmp_path):
    """JSON lines: 200 texts, one of them blank, and one line that is not a document."""
    texts = [*TEXTS[:5], " ", *TEXTS[6:]]
    lines = [
        json.dumps({"id": f"doc-{i}", "text": text, "label": i % 7, "error": ""})
        for i, text in enumerate(texts)
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join([*lines, "{broken"]))
    return open_documents(path, columns=Columns(keep=("label",)))
