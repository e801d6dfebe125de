"""A job over many workers as people run it: planned, computed, merged, reported and priced."""

import json
import re

import pytest

from actvec.client.errors import InvalidArgument, UnsupportedInput
from actvec.client.planning.estimate import Plan
from actvec.client.planning.prices import CARDS
from actvec.modal.batch import Coordinator
from actvec.server.errors import RequestError
from tests.modal.containers import TEXTS, Containers


@pytest.fixture
def modal(tmp_path, demo_engine, demo_model):
    return Containers(tmp_path, demo_engine, demo_model)


@pytest.fixture
def compute(modal):
    """The workers of a job."""

    def compute(shards, arguments):
        rest = {name: value for name, value in arguments.items() if name != "kind"}
        return modal.map(arguments["kind"], **rest)(shards)

    return compute


@pytest.fixture
def coordinator(modal, compute):
    """The coordinator, and its output for people."""
    seen = []
    plan = Plan("L4", "demo", tokens_per_second=1000.0, price_per_hour=0.9)

    def mean_id(name):
        return modal.worker(modal.site()).find_corpus_mean(name)

    return Coordinator(modal.site(), compute, mean_id, plan, seen.append), seen


def test_mean_is_planned_merged_and_priced(coordinator, demo_model):
    mean, seen = coordinator[0].mean("bridges.jsonl", "bridges", 2, {}), coordinator[1]
    ids = demo_model.tokenizer([*TEXTS[:5], *TEXTS[6:]])["input_ids"]
    assert (mean.documents, mean.tokens) == (59, sum(len(of_one) + 1 for of_one in ids))
    assert seen[0].startswith("plan: 60 documents, ")
    assert "2 x L4 at 1,000 tokens/s (given) and $0.90 an hour: 0:02:0" in seen[0]
    assert seen[1] == "plan: 1 documents are unreadable or blank, 0 over the context"
    assert re.fullmatch(r"2 shards in \d:\d\d:\d\d", seen[2])
    assert seen[3] == f"mean bridges ({mean.id}): 59 documents of {mean.tokens:,} tokens"
    assert seen[4].startswith("skipped for INVALID_ARGUMENT: 1; the first is doc-5: ")
    assert re.match(r"workers computed for \d:\d\d:\d\d", seen[5])


def test_stored_mean_is_not_recomputed(coordinator, modal):
    made = coordinator[0].mean("bridges.jsonl", "bridges", 1, {})
    with pytest.raises(RequestError, match=f"the name of a mean already: {made.id}"):
        coordinator[0].mean("bridges.jsonl", "bridges", 1, {})
    assert modal.attempts.total() == 1


@pytest.mark.parametrize("options", [{}, {"variance": True}])
def test_deleted_mean_is_recomputed_by_warm_containers(coordinator, modal, options):
    modal.keep_warm()
    first = coordinator[0].mean("bridges.jsonl", "bridges", 2, {})
    store = modal.store()
    store.delete(store.find("bridges", first.model))
    again = coordinator[0].mean("bridges.jsonl", "bridges", 2, options)
    assert (again.documents, again.has_variance) == (59, bool(options))
    assert modal.attempts == {"1/2": 2, "2/2": 2}
    assert [record.id for record in modal.store().records()] == [again.id]


def test_blank_shard_reports_its_skipped_documents(coordinator, modal):
    modal.corpus("half.jsonl", [" ", TEXTS[0], "\n", TEXTS[1], "", " "])
    mean, seen = coordinator[0].mean("half.jsonl", "half", 2, {}), coordinator[1]
    assert (mean.documents, modal.attempts) == (2, {"1/2": 1, "2/2": 1})
    assert [(one.reason, one.documents) for one in mean.skipped] == [("INVALID_ARGUMENT", 4)]
    assert any(line.startswith("skipped for INVALID_ARGUMENT: 4; the first is ") for line in seen)
    assert not list((modal.committed / "shards").rglob("*.*"))


def test_blank_corpus_is_refused_until_mended(coordinator, modal):
    modal.corpus("blank.jsonl", [" ", "\n", ""])
    with pytest.raises(RequestError, match=r"to average: skipped for INVALID_ARGUMENT: 3; .* doc-"):
        coordinator[0].mean("blank.jsonl", "mended", 2, {})
    assert modal.store().records() == []
    modal.corpus("blank.jsonl", [" ", "Not any more.", ""])
    assert coordinator[0].mean("blank.jsonl", "mended", 2, {"variance": True}).documents == 1


def test_vectors_are_planned_and_priced(coordinator):
    options = {"mode": "long", "format": "shards", "truncation": "error"}
    made, seen = coordinator[0].vectors("bridges.jsonl", "long", 3, options), coordinator[1]
    assert sum(part["vectors"] for part in made) == 59
    line = "59 vectors in vectors/long of the volume; 1 documents failed; the first is '"
    assert any(one.startswith(line) for one in seen)


def test_fields_of_a_corpus_are_named(coordinator, modal):
    rows = [{"body": f"In {1900 + n}.", "uid": f"u{n}", "label": n % 2} for n in range(4)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (modal.committed / "corpora" / "fields.jsonl").write_text(lines)
    fields = {"column": "body", "id_column": "uid"}
    assert coordinator[0].mean("fields.jsonl", "fields", 2, fields).documents == 4
    options = {"mode": "short", "format": "shards", "keep": ["label"], **fields}
    coordinator[0].vectors("fields.jsonl", "fields", 2, options)
    indexes = (modal.committed / "vectors" / "fields").rglob("vectors-*.jsonl")
    found = [json.loads(line) for path in indexes for line in path.read_text().splitlines()]
    assert {one["id"]: one["columns"]["label"] for one in found} == {
        f"u{n}": n % 2 for n in range(4)
    }
    with pytest.raises(UnsupportedInput, match="no column 'topic'; there are: body, uid, label"):
        coordinator[0].vectors("fields.jsonl", "fields", 2, {**options, "keep": ["topic"]})


def test_shards_share_one_latest_mean(coordinator):
    mean = coordinator[0].mean("bridges.jsonl", "bridges", 2, {})
    options = {"mode": "short", "format": "shards"}
    made = coordinator[0].vectors("bridges.jsonl", "centered", 2, options, center="latest")
    assert [part["stamp"]["corpus_mean_id"] for part in made] == [mean.id, mean.id]


def test_shards_never_outnumber_documents(coordinator, modal):
    modal.corpus("two.jsonl", ["One.", "Two."])
    assert coordinator[0].mean("two.jsonl", "two", 9, {}).documents == 2
    assert sorted(modal.attempts) == ["1/2", "2/2"]


def test_no_estimate_is_no_obstacle(modal, compute):
    """As with the demo model, unknown to `actvec plan`, on any card."""
    seen = []
    trial = Coordinator(modal.site(), compute, pytest.fail, Plan("TPU", "demo"), seen.append)
    assert trial.mean("bridges.jsonl", "bridges", 2, {}).documents == 59
    assert seen[0] == (
        "plan: 60 documents; no estimate is available: the price of TPU is unknown, only those of"
        f" {', '.join(list(CARDS)[:-1])} and {list(CARDS)[-1]} are known; give it"
    )
    assert re.match(r"workers computed for \d:\d\d:\d\d", seen[-1])
    assert "$" not in seen[-1]


def test_demo_model_needs_only_a_speed(modal, compute):
    seen = []
    plan = Plan("L4", "demo", tokens_per_second=1000.0)
    Coordinator(modal.site(), compute, pytest.fail, plan, seen.append).vectors(
        "bridges.jsonl", "trial", 2, {"mode": "short"}
    )
    assert "2 x L4 at 1,000 tokens/s (given)" in seen[0]


def test_model_beyond_its_card_is_refused(modal):
    large = Coordinator(modal.site(), pytest.fail, pytest.fail, Plan("T4", "EleutherAI/pythia-12b"))
    with pytest.raises(InvalidArgument, match="does not fit a T4"):
        large.mean("bridges.jsonl", "bridges", 2, {})
