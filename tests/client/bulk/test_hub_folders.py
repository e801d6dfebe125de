"""Jobs whose folder is in a dataset of the hub: each upload is one commit, whole or not at all."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from actvec.client import Client
from actvec.client.bulk.remote.hub import HubStore
from actvec.client.errors import (
    Aborted,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
)
from tests.client.bulk.jobs import StopHereError, job, manifest_of, stop_after, write_corpus
from tests.local_hub import Repository

pytestmark = pytest.mark.usefixtures("copies")

DATASET = "datasets/me/vectors"
URL = f"hf://{DATASET}/deep/one"
WRITER = "hf_writer"

# `actvec`, which kills itself with SIGKILL when it has uploaded the files of its second commit.
PROGRAM = """
import os, signal, sys
from huggingface_hub import _commit_api

send, sent = _commit_api._send_commit, []

def killing(**named):
    sent.append(named)
    if len(sent) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return send(**named)

_commit_api._send_commit = killing
from actvec.client.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def hub(local_hub, ask_hub):
    """A hub without repositories, to which this machine's token may write."""
    local_hub.writer = WRITER
    local_hub.environment = ask_hub(local_hub, HF_TOKEN=WRITER, HF_HUB_DISABLE_XET="1")
    return local_hub


@pytest.fixture
def client(demo_server):
    with Client(demo_server.target) as client:
        yield client


def commits(hub):
    """Number of commits since the last time."""
    return sum("/commit/" in line for line in hub.take_requests())


def folder_of(hub, branch="main"):
    return hub.repositories[DATASET].head(branch) / "deep" / "one"


def test_stopped_job_resumes_in_a_new_dataset(client, corpus, hub, check_complete):
    with pytest.raises(StopHereError):
        job(corpus, URL, "parquet").run(client, on_progress=stop_after(30))
    assert hub.repositories[DATASET].private
    assert not manifest_of(folder_of(hub))["finished_at"]
    progress = job(corpus, URL, "parquet", resume=True).run(client)
    assert progress.resumed_vectors + progress.resumed_failed >= 30
    check_complete(folder_of(hub), "parquet")
    assert manifest_of(folder_of(hub))["finished_at"]
    assert not (folder_of(hub) / "owner.json").exists()


def test_whole_job_is_two_commits(client, corpus, hub):
    job(corpus, URL).run(client)
    assert commits(hub) == 2
    assert job(corpus, URL, resume=True).run(client).resumed_vectors == 57
    assert commits(hub) == 0


def test_killed_upload_leaves_nothing_that_counts(demo_server, corpus, hub, check_complete):
    def run(program):
        return subprocess.run(
            [
                *(sys.executable, "-c", program, "stream", str(corpus), "--out", URL, "--json"),
                *("--resume", "--mode", "short", "--format", "shards"),
                *("--target", demo_server.target),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | hub.environment | {"TMPDIR": tempfile.gettempdir()},
        )

    killed = run(PROGRAM)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert any(line.startswith("PUT /lfs/") for line in hub.take_requests())
    assert sorted(path.name for path in folder_of(hub).iterdir()) == ["manifest.json", "owner.json"]
    last = run("import sys; from actvec.client.cli import main; main(sys.argv[1:])")
    assert last.returncode == 1, last.stderr
    assert json.loads(last.stdout)["errors"] == f"{URL}/errors.jsonl"
    check_complete(folder_of(hub))


def test_altered_file_is_named(client, corpus, hub):
    job(corpus, URL).run(client)
    (folder_of(hub) / "vectors-00001.safetensors").write_bytes(b"altered")
    with pytest.raises(DataLoss, match=f"^{URL}/vectors-00001.safetensors has 7 bytes"):
        job(corpus, URL, resume=True).run(client)


def test_branch_takes_the_files(client, corpus, hub, check_complete):
    url = f"hf://{DATASET}@mine/deep/one"
    job(corpus, URL).run(client)
    with pytest.raises(FailedPrecondition, match=r"the dataset has no branch 'mine'; create it"):
        job(corpus, url).run(client)
    repository = hub.repositories[DATASET]
    repository.refs["mine"] = "a" * 40
    job(corpus, url).run(client)
    check_complete(folder_of(hub, "mine"))
    assert repository.refs["mine"] != repository.refs["main"]


@pytest.mark.parametrize("private", [True, False])
def test_missing_token_is_one_line(client, corpus, hub, monkeypatch, private):
    hub.repositories[DATASET] = repository = Repository(hub.folder(), private=private)
    monkeypatch.delenv("HF_TOKEN")
    advice = "needs a token that may write: set HF_TOKEN, or run `hf auth login`$"
    with pytest.raises(Unauthenticated, match=f"^{URL} {advice}"):
        job(corpus, URL).run(client)
    assert not repository.folders


@pytest.mark.parametrize("private", [True, False])
def test_token_of_others_is_one_line(client, corpus, hub, monkeypatch, private):
    hub.repositories[DATASET] = repository = Repository(hub.folder(), private=private)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    advice = "may not read or write there; give one that may write to me/vectors in HF_TOKEN$"
    with pytest.raises(PermissionDenied, match=f"^{URL}: .*{advice}"):
        job(corpus, URL).run(client)
    assert not repository.folders


@pytest.mark.parametrize(
    "url", ["hf://me/vectors/one", "hf://datasets/vectors", "hf://buckets/me/b/one", "hf://"]
)
def test_other_places_of_the_hub_are_refused(corpus, url):
    with pytest.raises(InvalidArgument, match=r"cannot use \S+: give hf://datasets/OWNER"):
        job(corpus, url)


@pytest.mark.usefixtures("hub")
def test_second_machine_is_refused(client, corpus, monkeypatch):
    def begin_elsewhere(_):
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(tempfile, "tempdir", str(corpus.parent))
            with pytest.raises(Aborted, match=f"another process is writing to {URL}: pid "):
                job(corpus, URL, resume=True).run(client)
        raise StopHereError

    with pytest.raises(StopHereError):
        job(corpus, URL).run(client, on_progress=begin_elsewhere)


def test_commits_of_others_are_kept(client, corpus, hub, check_complete):
    """Another shard is committed between a look at the dataset and the commit."""
    job(corpus, f"hf://{DATASET}/other").run(client)
    repository, others = hub.repositories[DATASET], iter(range(2))

    def commit_another():
        for number in others:
            content = {"path": f"{number}.txt", "content": ""}
            hub.commit(repository, "main", [{"key": "file", "value": content}])
            return

    hub.on_commit = commit_another
    job(corpus, URL).run(client)
    check_complete(folder_of(hub))
    names = {path.name for path in repository.head().iterdir()}
    assert {"0.txt", "1.txt", "other"} <= names


def test_busy_hub_is_waited_for(client, hub, tmp_path, monkeypatch):
    """Commits in the middle are put off; the first and the last wait."""
    monkeypatch.setattr(HubStore, "save_every", 0.0)
    asked = itertools.count(1)
    # One refused at the start, one after each of the four documents, and one at the end.
    hub.on_commit = lambda: None if next(asked) in (2, 8) else 429
    corpus = write_corpus(tmp_path / "four.jsonl", range(1, 5))
    done = []
    job(corpus, URL, save_every=0.0).run(client, on_progress=lambda one: done.append(one.durable))
    assert done == [0, 0, 0, 0, 4]
    assert next(asked) == 9
    assert manifest_of(folder_of(hub))["finished_at"]


def test_ignored_file_is_an_error(client, corpus, hub):
    hub.ignored.add("deep/one/vectors-00000.safetensors")
    with pytest.raises(OSError, match=f"^{URL} .*vectors-00000.safetensors is missing.*gitignore"):
        job(corpus, URL).run(client)
    hub.ignored.clear()
    with pytest.raises(DataLoss, match=f"^{URL}/vectors-00000.safetensors is missing"):
        job(corpus, URL, resume=True).run(client)
