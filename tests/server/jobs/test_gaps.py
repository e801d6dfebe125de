"""A failed chunk leaves a gap in the numbers: nothing after it may become durable."""

import asyncio
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from actvec.pooling import MeanAccumulator
from actvec.server.config import Limits
from actvec.server.jobs.checkpoint import JobDirectory, JobState
from actvec.server.jobs.mean_job import JobDocument, MeanJob
from actvec.server.jobs.settings import JobSettings
from actvec.server.means.record import MeanRecord
from actvec.server.model.text.tokenized import TokenizedDocument

D = 4


class LaneByHand:
    """A lane whose documents finish when a test decides."""

    def __init__(self):
        self.documents = []

    async def put(self, document, _tokens, done):
        self.documents.append((document, done))

    def close(self):
        pass

    def add(self, number):
        """A document is computed: its states are in the sums."""
        document, done = self.documents[number]
        document.sums.add(torch.ones(len(document.ids), D))
        done(np.zeros((1, D), np.float32))

    def fail(self, number):
        self.documents[number][1](RuntimeError("the engine is lost"))


@pytest.fixture
def lane():
    return LaneByHand()


@pytest.fixture
def job(lane, tmp_path):
    directory = JobDirectory(tmp_path / "job")
    directory.create("{}")
    extractor = SimpleNamespace(
        lane=lambda: lane,
        limits=Limits(),
        max_tokens=16,
        card=SimpleNamespace(d_model=D, device="cpu"),
        engines_lost=0,
    )
    settings = JobSettings("job", MeanRecord(name="job", d_model=D))
    return MeanJob(settings, directory, extractor, JobState(MeanAccumulator(D)))


def document(number):
    text = f"text {number}"
    content = TokenizedDocument(np.arange(3), tokens=3)
    return JobDocument(number, f"d{number}", hashlib.sha256(text.encode()).digest(), content)


async def sealed(job, *numbers):
    """Add documents and seal their chunk; the commit waits for them."""
    for number in numbers:
        await job.add(document(number))
    committing = asyncio.create_task(job.commit())
    # The commit runs until it waits for the documents.
    for _ in range(5):
        await asyncio.sleep(0)
    assert job.uncommitted == 0
    return committing


async def test_chunk_after_a_failed_one_is_void(job, lane, tmp_path):
    committing = await sealed(job, 0, 1)
    await job.add(document(2))
    lane.add(0)
    lane.fail(1)
    with pytest.raises(RuntimeError, match="the engine is lost"):
        await committing
    lane.add(2)
    with pytest.raises(RuntimeError, match="the engine is lost"):
        await job.commit()
    assert job.failed
    assert JobDirectory(tmp_path / "job").load() is None


async def test_chunk_after_a_durable_one_counts(job, lane, tmp_path):
    committing = await sealed(job, 0, 1)
    await job.add(document(2))
    for number in range(3):
        lane.add(number)
    assert (await committing).next_sequence == 2
    assert (await job.commit()).next_sequence == 3
    loaded = JobDirectory(tmp_path / "job").load()
    assert (loaded.next_sequence, loaded.accumulator.documents) == (3, 3)
