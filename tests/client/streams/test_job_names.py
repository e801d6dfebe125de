"""Jobs without a name: named by the model, the settings and the documents."""

import os
import re
from dataclasses import replace

import pytest

from actvec.client import Document
from actvec.client.documents import open_documents
from actvec.client.records.settings import MeanSettings
from actvec.client.streams.job_names import named_by_content

TEXTS = [f"In {1900 + n} the lantern was lit." for n in range(12)]
UNNAMED = MeanSettings(job="", name="")


@pytest.fixture
def info(client):
    return client.info()


def test_cells_run_again(client):
    """The same documents give the same mean, without computing; others another one."""
    mean = client.corpus_mean(TEXTS)
    assert re.fullmatch(r"corpus-[0-9a-f]{16}", mean.name)
    told = []
    assert client.corpus_mean(list(TEXTS), on_progress=told.append) == mean
    assert {progress.committed for progress in told} <= {len(TEXTS)}
    edited = client.corpus_mean([*TEXTS, "One more."])
    assert (edited.documents, edited.name != mean.name) == (len(TEXTS) + 1, True)


def test_names_stand_for_the_newest_mean(client):
    first = client.corpus_mean(TEXTS, name="edited-cell")
    second = client.corpus_mean(TEXTS[1:], name="edited-cell")
    assert (first.name, second.name) == ("edited-cell", "edited-cell")
    assert client.get_mean("edited-cell") == second


def test_interrupted_cells_resume(client):
    class Breaking(list):
        reads = 0

        def __iter__(self):
            self.reads += 1
            yield from self[:5]
            if self.reads == 2:
                raise KeyError("broken")
            yield from self[5:]

    documents, told = Breaking(TEXTS[::-1]), []
    with pytest.raises(KeyError, match="broken"):
        client.corpus_mean(documents)
    mean = client.corpus_mean(documents, on_progress=told.append)
    assert (mean.documents, told[0].committed) == (len(TEXTS), 5)


@pytest.mark.parametrize(
    "other",
    [
        {"layers": (0,)},
        {"separate": True},
        {"hook": "resid_pre"},
        {"truncation": "end"},
        {"prepend_bos": False},
        {"variance": True},
        {"name": "other"},
        {"add_generation_prompt": True},
        {"chat_template_kwargs": {"a": 1}},
    ],
)
def test_settings_are_part_of_the_name(info, other):
    named = named_by_content(UNNAMED, TEXTS, info)
    assert named_by_content(replace(UNNAMED, **other), TEXTS, info).job != named.job


def test_models_are_part_of_the_name(info):
    named = named_by_content(UNNAMED, TEXTS, info)
    for other in ({"revision": "other"}, {"dtype": "float16"}, {"layers": (0,)}):
        assert named_by_content(UNNAMED, TEXTS, replace(info, **other)).job != named.job
    asked = replace(UNNAMED, layers=info.layers, hook=info.hook)
    assert named_by_content(asked, TEXTS, info).job == named.job


def test_job_name_covers_ids_and_order(info):
    documents = [Document(str(n), text) for n, text in enumerate(TEXTS)]
    jobs = {
        named_by_content(UNNAMED, given, info).job
        for given in (TEXTS, documents, documents[::-1], [replace(documents[0], id="x")])
    }
    assert len(jobs) == 3


async def words():
    yield "one"


@pytest.mark.parametrize("documents", [iter(TEXTS), words()], ids=["iterator", "asynchronous"])
def test_what_is_read_once_needs_a_job(client, documents):
    with pytest.raises(ValueError, match=r"read only once; name the job, or give .* a list"):
        client.corpus_mean(documents)


def test_pipes_need_a_job(client, tmp_path):
    os.mkfifo(tmp_path / "corpus.jsonl")
    with pytest.raises(ValueError, match="LinesSource can be read only once"):
        client.corpus_mean(open_documents(tmp_path / "corpus.jsonl"))
