"""How far a job is through its source, in bytes."""

import pytest

from actvec.client.documents import open_documents
from actvec.client.documents.reading import FollowedDocuments, Reading

LINE = '{"text": "one"}\n'


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(LINE * 10)
    return open_documents(path)


def test_bytes_follow_the_documents(source):
    followed = FollowedDocuments(source)
    drawn = iter(followed)
    assert [next(drawn).id for _ in range(4)] == ["1", "2", "3", "4"]
    reading = followed.reading(done=3, resumed=0)
    assert (reading.input_bytes, reading.done_bytes) == (10 * len(LINE), 3 * len(LINE))
    assert reading.fraction == pytest.approx(0.3)
    assert followed.reading(done=9, resumed=0).done_bytes == 4 * len(LINE)
    assert len(list(drawn)) == 6
    assert followed.reading(done=10, resumed=0).seconds_left == 0


def test_resumed_documents_do_not_affect_the_time_left(source):
    followed = FollowedDocuments(source)
    drawn = iter(followed)
    # The durable part is known before any document is drawn.
    assert followed.reading(done=5, resumed=5).seconds_left is None
    for _ in range(7):
        next(drawn)
    assert followed.reading(done=5, resumed=5).seconds_left is None
    reading = followed.reading(done=7, resumed=5)
    assert (reading.resumed_bytes, reading.done_bytes) == (5 * len(LINE), 7 * len(LINE))


def test_time_left_follows_from_bytes():
    assert Reading(100, 40, 20, 3.0).seconds_left == pytest.approx(9.0)
    assert Reading(None, 40, 0, 3.0).seconds_left is None
    assert (Reading(None, 40).fraction, Reading(0).fraction) == (None, 1.0)
