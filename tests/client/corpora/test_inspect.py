"""Inspecting a corpus: counts, lengths and histograms against the simplest computation."""

import gzip
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actvec.client import Client, Document, Failure, MissingExtra, UnsupportedInput
from actvec.client.corpora import TokenCounter, inspect_corpus, inspect_documents
from actvec.client.documents import open_documents
from actvec.client.samples import sample_corpus

TOKENIZER = str(files("actvec.server").joinpath("model", "demo", "tokenizer.json"))


@pytest.fixture
def corpus(tmp_path):
    """A file with a repeated text, a blank one, and a line that is not a document."""
    texts = ["one two three", "four", " \n", "one two three", "fünf sechs"]
    lines = [json.dumps({"id": f"d{number}", "text": text}) for number, text in enumerate(texts)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join([*lines, "rubbish"]) + "\n")
    return path


def documents(texts):
    return [Document(str(number), text) for number, text in enumerate(texts)]


def table(output):
    """The last cell of each printed row that has a name."""
    cells = [line.split() for line in output.splitlines() if len(line.split()) > 1]
    return {row[0]: row[1:] for row in cells}


def test_documents_are_counted_by_problem(corpus):
    found = inspect_corpus(corpus)
    assert (found.documents, found.unreadable, found.empty, found.duplicates) == (5, 1, 1, 1)
    (failure,) = found.failures
    assert "line 6" in failure.message


def test_lengths_exclude_empty_documents(corpus):
    found = inspect_corpus(corpus)
    assert (found.words.total, found.words.mean, found.words.median) == (9, 2.25, 2.5)
    assert (found.words.shortest.id, found.words.shortest.length) == ("d1", 1)
    assert (found.words.longest.id, found.words.longest.length) == ("d0", 3)
    assert found.bytes.total == len("one two three" * 2 + "four" + "fünf sechs") + 1  # ü has two
    assert found.tokens is None
    assert found.over_context is None


@settings(deadline=None)
@given(st.lists(st.text("ab \n", max_size=30), max_size=30))
def test_every_figure_is_what_counting_gives(texts):
    found = inspect_documents(documents(texts))
    words = [len(text.split()) for text in texts]
    kept = [text for text, count in zip(texts, words, strict=True) if count]
    assert found.documents == len(texts)
    assert found.empty == words.count(0)
    assert found.duplicates == len(kept) - len(set(kept))
    if not kept:
        assert found.words is found.bytes is None
        return
    counts = [count for count in words if count]
    assert found.words.total == sum(counts)
    assert found.words.median == statistics.median(counts)
    assert found.words.shortest.length == min(counts)
    assert found.words.longest.length == max(counts)
    assert found.bytes.total == sum(map(len, kept))


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=200).map(
        lambda lengths: ["w " * length for length in lengths]
    )
)
def test_histogram_has_each_document_in_one_bin(texts):
    lengths = [len(text.split()) for text in texts]
    bins = inspect_documents(documents(texts)).words.histogram
    assert len(bins) <= 12
    for one in bins:
        assert one.documents == sum(one.low <= length <= one.high for length in lengths)
    assert sum(one.documents for one in bins) == len(texts)
    widths = {one.high - one.low + 1 for one in bins[:-1]}
    assert len(widths) <= 1
    assert all(str(width).rstrip("0") in {"1", "2", "5"} for width in widths)
    for before, after in itertools.pairwise(bins):
        assert after.low == before.high + 1


def test_giants_do_not_squeeze_the_histogram():
    lengths = [*np.random.default_rng(0).integers(700, 1500, 500), 1_000_000]
    bins = inspect_documents(documents("w " * length for length in lengths)).words.histogram
    assert sum(one.documents > 0 for one in bins) >= 8
    assert bins[-1].high >= 1_000_000


def test_tokens_are_those_that_a_server_counts(demo_server):
    corpus = sample_corpus()
    counter = TokenCounter(TOKENIZER)
    with Client(demo_server.target) as client:
        vectors = list(client.stream(corpus, mode="short", truncation="end", ordered=True))
        without = client.extract(corpus[0], mode="short", truncation="end", prepend_bos=False)
    assert counter.count([document.text for document in corpus]) == [v.tokens for v in vectors]
    assert TokenCounter(TOKENIZER, prepend_bos=False).count([corpus[0].text]) == [without.tokens]

    context = 1000
    found = inspect_documents(corpus, tokenizer=counter, context=context)
    assert found.tokens.total == sum(vector.tokens for vector in vectors)
    assert found.over_context == sum(vector.tokens > context for vector in vectors) > 0


def test_the_real_tokenizer_and_real_documents(shared_data):
    counter = TokenCounter(str(shared_data / "gpt-neox-20b-tokenizer.json"))
    texts = []
    for path in sorted((shared_data / "c4-sample").glob("*.json.gz")):
        with gzip.open(path, "rt") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    found = inspect_documents(documents(texts), tokenizer=counter, context=2048)
    assert (found.documents, found.empty, found.duplicates) == (30, 0, 0)
    assert (found.words.shortest.length, found.words.longest.length) == (20, 1034)
    # BOS, then two words that this tokenizer keeps whole.
    assert counter.count(["Hello world"]) == [3]
    assert found.words.total < found.tokens.total < found.bytes.total
    assert found.over_context == sum(count > 2048 for count in counter.count(texts))


def test_tokenizer_is_a_file_or_a_folder(tmp_path):
    shutil.copy(TOKENIZER, tmp_path)
    texts = [document.text for document in sample_corpus()]
    assert TokenCounter(str(tmp_path)).count(texts) == TokenCounter(TOKENIZER).count(texts)


def test_what_is_no_tokenizer_is_refused(tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "absent.json", ""):
        with pytest.raises(UnsupportedInput, match="cannot load the tokenizer"):
            TokenCounter(str(tmp_path / name))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'actvec\[data\]'"):
        TokenCounter(TOKENIZER)


def test_a_context_wants_a_tokenizer(corpus):
    with pytest.raises(ValueError, match="give a tokenizer to count them"):
        inspect_corpus(corpus, context=10)


def test_first_failures_are_kept():
    broken = [Failure(str(number), "INVALID_ARGUMENT", "broken") for number in range(25)]
    found = inspect_documents(broken)
    assert (found.documents, found.unreadable) == (0, 25)
    assert [failure.id for failure in found.failures] == [str(number) for number in range(10)]
    assert [failure.index for failure in found.failures] == list(range(10))


@pytest.mark.parametrize("options", [[], ["--tokenizer", TOKENIZER]], ids=["words", "tokens"])
def test_invalid_utf8_is_unreadable(program, demo_server, tmp_path, options):
    records = [("a", "one two"), ("half a pair", "\ud83d"), ("\ud83d", "three")]
    path = tmp_path / "halves.jsonl"
    path.write_text("\n".join(json.dumps({"id": name, "text": text}) for name, text in records))
    with Client(demo_server.target) as client:
        results = list(client.stream(open_documents(path), mode="short", ordered=True))
    code, output, _ = program("corpus", "inspect", path, *options, "--json")
    found = json.loads(output)
    assert (code, found["documents"], found["unreadable"]) == (1, 1, 2)
    assert found["failures"] == [one.to_dict() for one in results if isinstance(one, Failure)]
    code, output, errors = program("corpus", "inspect", path, *options)
    assert (code, table(output)["unreadable"]) == (1, ["2"])
    assert "half of a surrogate pair" in errors


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_id_without_utf8_is_printed_safely(tmp_path, encoding):
    path = tmp_path / "halves.jsonl"
    path.write_text(json.dumps({"id": "\ud83d", "text": "three"}))
    found = subprocess.run(
        [
            *(sys.executable, "-c", "from actvec.client.cli import main; main()"),
            *("corpus", "inspect", path),
        ],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        check=False,
    )
    assert found.returncode == 1
    assert b"the id of document '\\ud83d' cannot be written in UTF-8" in found.stderr
    assert b"Traceback" not in found.stderr


def test_inspect_shows_a_table_and_a_histogram(program, corpus):
    code, output, errors = program(
        "corpus", "inspect", corpus, "--tokenizer", TOKENIZER, "--context", 6
    )
    shown = table(output)
    found = inspect_corpus(corpus, tokenizer=TOKENIZER, context=6)
    assert code == 1  # a line is not a document
    assert (shown["readable"], shown["duplicates"]) == (["5"], ["1"])
    assert shown["total"] == [str(found.tokens.total), "9", str(found.bytes.total)]
    assert shown["over"] == ["6", "tokens", str(found.over_context)]
    assert "█" in output
    assert "line 6" in errors
    assert "include one BOS" in errors


def test_context_needs_a_tokenizer(program, tmp_path):
    (tmp_path / "a [b].txt").write_text("some words")
    code, output, errors = program("corpus", "inspect", tmp_path)
    assert code == 0
    assert "a [b]" in output
    assert "tokens" not in output
    assert "give --tokenizer to count tokens" in errors


def test_inspect_prints_json_for_programs(program, corpus):
    code, output, _ = program("corpus", "inspect", corpus, "--tokenizer", TOKENIZER, "--json")
    found = json.loads(output)
    assert code == 1
    assert found["words"]["histogram"][0] == {"low": 1, "high": 1, "documents": 1}
    assert (found["tokenizer"], found["prepend_bos"]) == (TOKENIZER, True)
    assert found["failures"][0]["code"] == "INVALID_ARGUMENT"


def test_a_corpus_of_nothing_is_shown_too(program, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    code, output, _ = program("corpus", "inspect", tmp_path / "none.jsonl")
    assert (code, table(output)["readable"]) == (0, ["0"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["absent"], "cannot read absent"),
        ([".", "--context", "5"], "need a --tokenizer"),
        ([".", "--no-bos"], "need a --tokenizer"),
        ([".", "--tokenizer", "absent.json"], "cannot load the tokenizer absent.json"),
        (["."], "holds no .txt file"),
    ],
)
def test_failed_inspection_exits_with_2(program, tmp_path, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    code, output, errors = program("corpus", "inspect", *options)
    assert (code, output) == (2, "")
    assert reason in errors
