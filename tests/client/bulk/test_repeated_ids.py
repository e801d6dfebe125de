"""Documents with the same id: each keeps its vector, in every format."""

import json

import pytest

from actvec.client.documents import open_documents
from tests.client.bulk.jobs import FORMATS, StopHereError, failures_of, job, stop_after
from tests.client.bulk.saved import read_back

COUNT = 9


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = ({"id": "ab"[n % 2], "text": f"In {1700 + n}."} for n in range(COUNT))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_documents(path)


@pytest.mark.parametrize("layout", FORMATS)
def test_repeated_ids_cost_no_vector(corpus, tmp_path, client, layout):
    with pytest.raises(StopHereError):
        job(corpus, tmp_path / "out", layout).run(client, window=1, on_progress=stop_after(4))
    done = job(corpus, tmp_path / "out", layout, resume=True).run(client)
    assert (done.vectors, done.repeated_ids, done.repeated_id in "ab") == (COUNT, COUNT - 2, True)
    saved = read_back(tmp_path / "out", layout)
    assert {(one.index, one.id) for one in saved} == {(n, "ab"[n % 2]) for n in range(COUNT)}
    assert failures_of(tmp_path / "out") == []
