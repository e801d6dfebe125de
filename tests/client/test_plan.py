"""`actvec plan`: tokens as the server counts them, and the arithmetic of time and money."""

import gzip
import json
from pathlib import Path

import pytest

from actvec.client import Client, Document, Failure, InvalidArgument
from actvec.client.cli import main
from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.plan import (
    Figure,
    Load,
    estimate,
    measure_load,
    price_figure,
    rate_figure,
)
from actvec.client.prices import CARDS, SHAPES, Shape, shape_of
from actvec.client.samples import sample_corpus

DEMO_TOKENIZER = Path(__file__).parents[2] / "server/actvec/server/demo/tokenizer.json"


def given(value):
    return Figure(value, "given", given=True)


@pytest.fixture
def actvec(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        return ending.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def corpus(tmp_path):
    texts = ["One short text.", "Another one, a little longer than the first.", " ", "word " * 40]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\nnot JSON\n")
    return path


@pytest.mark.parametrize(
    ("truncation", "computed"), [("error", [2, 5]), ("start", [2, 5, 6]), ("end", [2, 5, 6])]
)
def test_what_fails_costs_nothing_and_what_is_cut_costs_the_context(truncation, computed):
    class Words:
        """A word is a token, and so is BOS."""

        def count(self, texts):
            return [len(text.split()) + 1 for text in texts]

    texts = ["one", "one two three four", "one two three four five six seven", ""]
    items = [*(Document(str(i), text) for i, text in enumerate(texts)), Failure("x", "X", "gone")]
    load = measure_load(items, Words(), context=6, truncation=truncation)
    assert load == Load(
        documents=5,
        unreadable=2,
        over_context=1,
        tokens=sum(computed),
        squares=sum(tokens**2 for tokens in computed),
        longest_tokens=8,
    )


def test_tokens_are_those_that_a_server_counts(demo_server):
    counter = TokenCounter(str(DEMO_TOKENIZER))
    texts = list(sample_corpus())
    load = measure_load(texts, counter, context=2048)
    with Client(demo_server.target) as client:
        found = [result.tokens for result in client.stream(texts, mode="short")]
    assert (load.tokens, load.longest_tokens) == (sum(found), max(found))


def test_machines_share_the_work_and_each_of_them_starts_once():
    reckoned = estimate(
        Load(tokens=7_200_000),
        workers=4,
        tokens_per_second=given(1000.0),
        price_per_hour=given(2.0),
        start_seconds=100.0,
    )
    # 7200 s of one machine, a quarter of it each; 4 starts of 100 s are billed.
    assert reckoned.seconds == 1900
    assert reckoned.dollars == pytest.approx(7600 / 3600 * 2)


def test_nothing_to_do_costs_the_start():
    reckoned = estimate(
        Load(), workers=1, tokens_per_second=given(1.0), price_per_hour=given(36.0), start_seconds=9
    )
    assert (reckoned.seconds, reckoned.dollars) == (9, 0.09)


def test_flops_are_those_of_the_blocks_that_run():
    # Pythia-12B: blocks 0 to 27 of width 5120, 12 D^2 weights each.
    assert SHAPES["pythia-12b"] == Shape(5120, 28)
    assert SHAPES["pythia-70m"] == Shape(512, 5)
    assert Shape(5120, 28).flops(1, 0) == 28 * 2 * 12 * 5120 * 5120
    # Attention of one document of 2048 tokens: 2 products of T x D x T, half of each masked.
    assert Shape(5120, 28).flops(0, 2048**2) == 28 * 2 * (2 * 2048 * 5120 * 2048) / 2


@pytest.mark.parametrize("model", ["EleutherAI/pythia-12b", "pythia-12b-deduped", "x/Pythia-12B"])
def test_a_model_is_known_by_its_name(model):
    assert shape_of(model) == SHAPES["pythia-12b"]


def test_a_speed_that_nobody_measured_is_called_an_assumption():
    load = Load(tokens=1000, squares=0)
    rate = rate_figure("A100-80GB", "EleutherAI/pythia-12b", load, given=None, fraction=0.5)
    assert not rate.given
    assert rate.origin.startswith("assumed, not measured: 0.5 of the 312 TFLOP/s of A100-80GB")
    assert rate.value == pytest.approx(0.5 * 312e12 / (28 * 24 * 5120**2))


@pytest.mark.parametrize(("gpu", "model"), [("TPU", "pythia-12b"), ("L4", "meta/llama")])
def test_what_is_not_known_is_asked_for(gpu, model):
    with pytest.raises(InvalidArgument, match="give --tokens-per-second"):
        rate_figure(gpu, model, Load(tokens=1), given=None, fraction=0.5)
    assert rate_figure(gpu, model, Load(tokens=1), given=7.0, fraction=0.5).value == 7


@pytest.mark.parametrize("gpu", ["TPU", *(n for n, c in CARDS.items() if c.price_per_hour is None)])
def test_a_price_that_is_not_known_is_asked_for(gpu):
    with pytest.raises(InvalidArgument, match="give --price-per-hour"):
        price_figure(gpu, None)
    assert price_figure(gpu, 1.5).value == 1.5


def test_people_see_what_every_figure_stands_on(actvec, corpus):
    code, out, _ = actvec(
        *("plan", corpus, "--gpu=L4", f"--tokenizer={DEMO_TOKENIZER}", "--workers=2"),
        *("--context=20", "--price-per-hour=0.9"),
    )
    assert code == 1
    lines = {line[:10].strip(): line[12:] for line in out.splitlines()}
    assert lines["corpus"].startswith("5 documents, ")
    assert lines["unreadable"] == "2, or blank: they fail"
    assert lines["too long"] == "1 over 20 tokens: they fail"
    assert "assumed, not measured" in lines["speed"]
    assert lines["price"] == "$0.90 an hour for L4 (given)"
    assert lines["time"] == "0:02:00 with 2 workers"
    assert lines["cost"].startswith("$0.06 for GPUs; ")


def test_programs_read_the_same_as_json(actvec, corpus):
    code, out, _ = actvec(
        *("plan", corpus, "--gpu=H100", f"--tokenizer={DEMO_TOKENIZER}", "--truncation=end"),
        *("--tokens-per-second=10", "--json"),
    )
    found = json.loads(out)
    assert code == 1
    assert found["tokens_per_second_from"] == "given"
    assert (found["documents"], found["unreadable"], found["over_context"]) == (5, 2, 0)
    assert found["seconds"] == pytest.approx(120 + found["tokens"] / 10)
    assert found["dollars"] == pytest.approx(found["seconds"] / 3600 * 3.9492, abs=1e-4)


def test_a_corpus_without_a_fault_ends_with_0(actvec, tmp_path):
    path = tmp_path / "fine.jsonl"
    path.write_text(json.dumps({"text": "One text."}))
    code, _, _ = actvec("plan", path, "--gpu=L4", f"--tokenizer={DEMO_TOKENIZER}")
    assert code == 0


def test_real_texts_are_counted_with_the_real_tokenizer(actvec, shared_data, tmp_path):
    path = tmp_path / "c4.jsonl"
    parts = sorted((shared_data / "c4-sample").glob("*.gz"))
    path.write_bytes(b"".join(gzip.decompress(part.read_bytes()) for part in parts))
    tokenizer = shared_data / "gpt-neox-20b-tokenizer.json"
    code, out, _ = actvec("plan", path, "--gpu=A100-80GB", f"--tokenizer={tokenizer}", "--json")
    found = json.loads(out)
    assert code == 0
    counter = TokenCounter(str(tokenizer))
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert found["tokens"] == sum(counter.count(texts))
    assert found["documents"] == len(texts) == 30
