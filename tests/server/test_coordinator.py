"""A job over many workers as people run it: planned, computed, put together, told and priced."""

from pathlib import Path

import pytest

from actvec.server.coordinator import Coordinator, Figures
from actvec.server.errors import RequestError
from actvec.server.programs import ProgramError

from .containers import TEXTS, Containers

DEMO_TOKENIZER = Path(__file__).parents[2] / "server/actvec/server/demo/tokenizer.json"


@pytest.fixture
def modal(tmp_path, demo_engine, demo_model):
    return Containers(tmp_path, demo_engine, demo_model)


@pytest.fixture
def coordinator(modal):
    """What runs on Modal beside the workers, and what people see of it."""
    seen = []
    figures = Figures(
        "demo", "L4", tokens_per_second=1000.0, price_per_hour=0.9, tokenizer=str(DEMO_TOKENIZER)
    )

    def compute(shards, arguments):
        rest = {name: value for name, value in arguments.items() if name != "kind"}
        return modal.map(arguments["kind"], **rest)(shards)

    def mean_id(name):
        made = modal.worker(modal.site()).get_activation_vector("a", center=name)
        return made["stamp"]["corpus_mean_id"]

    return Coordinator(modal.site(), compute, mean_id, figures, seen.append), seen


def test_a_mean_is_planned_computed_merged_and_priced(coordinator, demo_model):
    mean, seen = coordinator[0].mean("bridges.jsonl", "bridges", 2, {}), coordinator[1]
    ids = demo_model.tokenizer([*TEXTS[:5], *TEXTS[6:]])["input_ids"]
    assert (mean.documents, mean.tokens) == (59, sum(len(of_one) + 1 for of_one in ids))
    assert seen[0].startswith("plan: 60 documents, ")
    assert "2 x L4 at 1,000 tokens/s (given) and $0.90 an hour: 0:02:0" in seen[0]
    assert seen[1] == "plan: 1 documents are unreadable or blank, 0 over the context"
    assert seen[2].startswith("2 shards in 0:00:0")
    assert seen[3] == f"mean bridges ({mean.id}): 59 documents of {mean.tokens:,} tokens"
    assert seen[4].startswith("left out for INVALID_ARGUMENT: 1; the first is doc-5: ")
    assert seen[5].startswith("workers computed for 0:00:0")


def test_a_mean_that_is_there_is_not_computed_again(coordinator, modal):
    made = coordinator[0].mean("bridges.jsonl", "bridges", 1, {})
    with pytest.raises(RequestError, match=f"a mean of it already, {made.id}"):
        coordinator[0].mean("bridges.jsonl", "bridges", 1, {})
    assert modal.attempts.total() == 1


@pytest.mark.parametrize("options", [{}, {"variance": True}])
def test_a_mean_that_was_deleted_is_computed_anew_by_containers_that_are_warm(
    coordinator, modal, options
):
    modal.keep_warm()
    first = coordinator[0].mean("bridges.jsonl", "bridges", 2, {})
    store = modal.store()
    store.delete(store.find("bridges", first.model))
    again = coordinator[0].mean("bridges.jsonl", "bridges", 2, options)
    assert (again.documents, again.has_variance) == (59, bool(options))
    assert modal.attempts == {"1/2": 2, "2/2": 2}
    assert [record.id for record in modal.store().records()] == [again.id]


def test_a_shard_without_a_usable_document_has_no_part_but_what_it_left_out_is_told(
    coordinator, modal
):
    modal.corpus("half.jsonl", [" ", TEXTS[0], "\n", TEXTS[1], "", " "])
    mean, seen = coordinator[0].mean("half.jsonl", "half", 2, {}), coordinator[1]
    assert (mean.documents, modal.attempts) == (2, {"1/2": 1, "2/2": 1})
    assert [(one.reason, one.documents) for one in mean.skipped] == [("INVALID_ARGUMENT", 4)]
    assert any(line.startswith("left out for INVALID_ARGUMENT: 4; the first is ") for line in seen)
    assert not list((modal.committed / "shards").rglob("*.*"))


def test_a_corpus_without_a_usable_document_is_refused_and_may_be_mended(coordinator, modal):
    modal.corpus("blank.jsonl", [" ", "\n", ""])
    with pytest.raises(
        RequestError, match=r"to average: left out for INVALID_ARGUMENT: 3; .* doc-"
    ):
        coordinator[0].mean("blank.jsonl", "mended", 2, {})
    assert modal.store().records() == []
    modal.corpus("blank.jsonl", [" ", "Not any more.", ""])
    assert coordinator[0].mean("blank.jsonl", "mended", 2, {"variance": True}).documents == 1


def test_vectors_are_planned_computed_and_priced(coordinator):
    options = {"mode": "long", "format": "shards", "truncation": "error"}
    made, seen = coordinator[0].vectors("bridges.jsonl", "long", 3, options), coordinator[1]
    assert sum(part["vectors"] for part in made) == 59
    assert "59 vectors in vectors/long of the volume; 1 documents failed" in seen


def test_all_shards_are_centred_by_the_mean_that_is_the_latest_when_they_begin(coordinator):
    mean = coordinator[0].mean("bridges.jsonl", "bridges", 2, {})
    options = {"mode": "short", "format": "shards"}
    made = coordinator[0].vectors("bridges.jsonl", "centred", 2, options, center="latest")
    assert [part["stamp"]["corpus_mean_id"] for part in made] == [mean.id, mean.id]


def test_there_are_no_more_shards_than_documents(coordinator, modal):
    modal.corpus("two.jsonl", ["One.", "Two."])
    assert coordinator[0].mean("two.jsonl", "two", 9, {}).documents == 2
    assert sorted(modal.attempts) == ["1/2", "2/2"]


def test_a_plan_that_lacks_a_figure_says_which_and_starts_nothing(modal):
    unknown = Coordinator(modal.site(), pytest.fail, pytest.fail, Figures("demo", "TPU"))
    with pytest.raises(ProgramError, match="give --price-per-hour"):
        unknown.mean("bridges.jsonl", "bridges", 2, {})
