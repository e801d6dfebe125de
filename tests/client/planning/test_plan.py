"""`actvec plan`: tokens as the server counts them, and the arithmetic of time and money."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from actvec.client import Client, Document, Failure, InvalidArgument
from actvec.client.cli import main
from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.documents import open_documents
from actvec.client.planning.estimate import (
    Estimate,
    Figure,
    Load,
    Plan,
    measure_load,
)
from actvec.client.planning.prices import CARDS, SHAPES, Shape, shape_of
from actvec.client.samples import sample_corpus

DEMO_TOKENIZER = Path(__file__).parents[3] / "server/actvec/server/model/demo/tokenizer.json"


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
def test_failed_documents_cost_nothing(truncation, computed):
    class Words:
        """Each word is a token, and so is BOS."""

        def count_documents(self, documents):
            return [len(document.content.split()) + 1 for document in documents]

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


def test_invalid_utf8_is_unreadable(actvec, demo_server, tmp_path):
    records = [("a", "One text."), ("half a pair", "\ud83d"), ("\ud83d", "Another text.")]
    path = tmp_path / "halves.jsonl"
    path.write_text("\n".join(json.dumps({"id": name, "text": text}) for name, text in records))
    with Client(demo_server.target) as client:
        results = list(client.stream(open_documents(path), mode="short", ordered=True))
    code, out, errors = actvec("plan", path, "--gpu=L4", f"--tokenizer={DEMO_TOKENIZER}", "--json")
    found = json.loads(out)
    assert (code, errors) == (1, "")
    assert (found["documents"], found["unreadable"]) == (3, 2)
    assert [isinstance(result, Failure) for result in results] == [False, True, True]
    assert found["tokens"] == results[0].tokens


def test_machines_share_the_work():
    estimate = Estimate(
        Load(tokens=7_200_000),
        workers=4,
        tokens_per_second=given(1000.0),
        price_per_hour=given(2.0),
        start_seconds=given(100.0),
    )
    # 7200 s of one machine, a quarter of it each; 4 starts of 100 s are billed.
    assert estimate.seconds == 1900
    assert estimate.dollars == pytest.approx(7600 / 3600 * 2)


def test_nothing_to_do_costs_the_start():
    estimate = Estimate(
        Load(),
        workers=1,
        tokens_per_second=given(1.0),
        price_per_hour=given(36.0),
        start_seconds=given(9.0),
    )
    assert (estimate.seconds, estimate.dollars) == (9, 0.09)
    # And no card is infinitely fast without work.
    idle = Plan("L4").rate(Load())
    assert idle.value == pytest.approx(0.5 * 121e12 / (28 * 24 * 5120**2))


def test_another_worker_costs_its_start():
    one, two = (
        Estimate(
            Load(tokens=1000),
            workers=workers,
            tokens_per_second=given(1.0),
            price_per_hour=given(3600.0),
            start_seconds=given(50.0),
        )
        for workers in (1, 2)
    )
    assert (one.seconds, two.seconds) == (1050, 550)
    assert (one.dollars, two.dollars) == (1050, 1100)


def test_flops_count_the_blocks_that_run():
    # Pythia-12B: blocks 0 to 27 of width 5120, 12 D^2 weights each.
    assert SHAPES["pythia-12b"] == Shape(5120, 28)
    assert SHAPES["pythia-70m"] == Shape(512, 5)
    assert Shape(5120, 28).flops(1, 0) == 28 * 2 * 12 * 5120 * 5120
    # Attention of one document of 2048 tokens: 2 products of T x D x T, half of each masked.
    assert Shape(5120, 28).flops(0, 2048**2) == 28 * 2 * (2 * 2048 * 5120 * 2048) / 2


@pytest.mark.parametrize("model", ["EleutherAI/pythia-12b", "pythia-12b-deduped", "x/Pythia-12B"])
def test_a_model_is_known_by_its_name(model):
    assert shape_of(model) == SHAPES["pythia-12b"]


def test_unmeasured_speed_is_called_an_assumption():
    rate = Plan("A100-80GB", "EleutherAI/pythia-12b").rate(Load(tokens=1000, squares=0))
    assert not rate.given
    assert rate.origin.startswith("assumed, not measured: 0.5 of the 312 TFLOP/s of A100-80GB")
    assert rate.value == pytest.approx(0.5 * 312e12 / (28 * 24 * 5120**2))


@pytest.mark.parametrize(("gpu", "model"), [("TPU", "pythia-12b"), ("L4", "meta/llama")])
def test_what_is_not_known_is_asked_for(gpu, model):
    with pytest.raises(InvalidArgument, match="give what you measured"):
        Plan(gpu, model).rate(Load(tokens=1))
    assert Plan(gpu, model, tokens_per_second=7.0).rate(Load(tokens=1)).value == 7


@pytest.mark.parametrize("gpu", ["TPU", "A100", "RTX 4090"])
def test_unknown_price_is_requested(gpu):
    with pytest.raises(InvalidArgument, match="A100-80GB, H100, H200 and B200 are known; give it"):
        Plan(gpu).price()
    assert Plan(gpu, price_per_hour=1.5).price().value == 1.5


@pytest.mark.parametrize(
    ("gpu", "per_second"),
    [
        *(("T4", 0.000164), ("L4", 0.000222), ("A10G", 0.000306), ("L40S", 0.000542)),
        *(("A100-40GB", 0.000583), ("A100-80GB", 0.000694), ("H100", 0.001097)),
        *(("H200", 0.001261), ("B200", 0.001736)),
    ],
)
def test_prices_are_those_of_modal(gpu, per_second):
    price = Plan(gpu).price()
    assert price.value == pytest.approx(3600 * per_second, rel=1e-12)
    assert "2026-05-25" in price.origin


def test_a_card_is_known_in_whatever_case():
    assert Plan("a100-80gb").card == "A100-80GB"
    assert Plan("my own").card == "my own"


def test_card_too_small_is_refused():
    # 28 blocks of 12 * 5120^2 and an embedding of 50,304 * 5120 numbers, 2 bytes each.
    assert SHAPES["pythia-12b"].weights == 2 * (28 * 12 * 5120**2 + 50304 * 5120) == 18_131_189_760
    with pytest.raises(InvalidArgument, match=r"does not fit a T4: 18\.1 GB .* it has 16 GB"):
        Plan("T4").rate(Load(tokens=1))
    fit = [name for name, card in CARDS.items() if card.memory > SHAPES["pythia-12b"].weights]
    assert fit == [name for name in CARDS if name != "T4"]


def test_assumed_figures_are_marked():
    pythia, other = Plan("L4", "EleutherAI/pythia-1b"), Plan("L4", "foo/bar")
    assert pythia.model_context() == Figure(2048, "that of EleutherAI/pythia-1b", given=False)
    assert "assumed, foo/bar is unknown here" in other.model_context().origin
    assert replace(other, context=512).model_context() == given(512)
    assert pythia.start().origin.startswith("assumed, not measured")
    assert replace(pythia, start_seconds=30.0).start() == given(30.0)


def lines_of(out):
    """The printed rows, rejoined if they were wrapped."""
    return {
        line[:12].strip(): line[12:] for line in out.replace("\n            ", " ").splitlines()
    }


def test_people_see_what_every_figure_stands_on(actvec, corpus):
    code, out, _ = actvec(
        *("plan", corpus, "--gpu=l4", f"--tokenizer={DEMO_TOKENIZER}", "--workers=2"),
        *("--context=20", "--price-per-hour=0.9"),
    )
    assert code == 1
    assert max(map(len, out.splitlines())) <= 100
    lines = lines_of(out)
    assert lines["corpus"].startswith("5 documents, ")
    assert lines["unreadable"] == "2, blank ones included: they fail and cost nothing"
    assert lines["too long"].startswith("1 over the context: they fail and cost nothing; ")
    assert lines["context"] == "20 tokens (given)"
    assert "(assumed, not measured: 0.5 of the 121 TFLOP/s of L4, " in lines["speed"]
    assert lines["price"] == "$0.90 an hour for L4 (given)"
    assert lines["start"] == "120 s for each worker (assumed, not measured; --start-seconds)"
    assert lines["time"] == "0:02:00 with 2 workers"
    assert lines["cost"].startswith("$0.06 for GPUs; ")
    assert lines["one more"] == "0:02:00 with 3 workers, $0.09"


def test_given_figures_are_no_assumptions(actvec, corpus):
    _, out, _ = actvec(
        *("plan", corpus, "--gpu=TPU", "--model=foo/bar", f"--tokenizer={DEMO_TOKENIZER}"),
        *("--price-per-hour=0.9", "--tokens-per-second=5", "--start-seconds=7", "--context=99"),
    )
    assert "assumed" not in out
    assert lines_of(out)["start"] == "7 s for each worker (given)"


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--gpu=TPU"], "give it (--price-per-hour)"),
        (["--gpu=TPU", "--price-per-hour=1"], "(--tokens-per-second)"),
        (["--gpu=L4", "--model=foo/bar"], "(--tokens-per-second)"),
        (["--gpu=T4"], "take another card (--gpu)"),
        (["--gpu=L4", "--fraction=0"], "--fraction"),
        (["--gpu=L4", "--workers=0"], "--workers"),
        ([], "--gpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_missing_figures_are_reported_first(actvec, corpus, monkeypatch, options, advice):
    monkeypatch.setattr(TokenCounter, "__init__", pytest.fail)
    code, out, errors = actvec("plan", corpus, *options)
    assert (code, out) == (2, "")
    assert advice in errors


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


def test_faultless_corpus_exits_with_0(actvec, tmp_path):
    path = tmp_path / "fine.jsonl"
    path.write_text(json.dumps({"text": "One text."}))
    code, _, _ = actvec("plan", path, "--gpu=L4", f"--tokenizer={DEMO_TOKENIZER}")
    assert code == 0


def test_real_texts_have_real_token_counts(actvec, shared_data, tmp_path):
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
