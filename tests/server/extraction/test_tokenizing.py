"""The order of tokenizing, and texts refused before it."""

import asyncio
import json
import threading
import unicodedata
from functools import partial

import pytest
from tokenizers import Tokenizer as Backend

from actvec.server.budget import Budget
from actvec.server.config import Limits
from actvec.server.errors import InputError
from actvec.server.extraction.tokenizing import Tokenizing, slices
from actvec.server.extraction.turns import Turns
from actvec.server.model.stamp import Truncation
from actvec.server.model.text.token_bounds import TokenBound
from actvec.server.model.text.tokenizer import Tokenizer
from actvec.server.service.requests import SentDocument
from actvec.v1.vectors_pb2 import Document
from tests.server.calling import extract, opened, some_documents
from tests.waiting import eventually


@pytest.fixture
def backend(demo_model):
    return demo_model.tokenizer.backend_tokenizer


async def test_callers_take_turns_and_their_calls():
    budget = Budget(Limits())
    turns = Turns("test")
    order = []
    held = threading.Event()

    async def call(caller, name):
        with budget.of_call(caller):
            for part in range(2):
                await turns.run(partial(order.append, f"{name}{part}"), caller)

    first = asyncio.create_task(turns.run(held.wait, "a"))
    await asyncio.sleep(0)
    calls = [asyncio.create_task(call("a", name)) for name in "uvw"]
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(call("b", "x")))
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(first, *calls)
    turns.close()
    # b came last and gets every other turn while it wants one; a's calls take turns, too.
    assert order == ["x0", "u0", "x1", "v0", "w0", "u1", "v1", "w1"]


async def test_cancelled_call_has_no_turn():
    turns = Turns("test")
    held, order = threading.Event(), []
    first = asyncio.create_task(turns.run(held.wait, "a"))
    await asyncio.sleep(0)
    gone, stays = (asyncio.create_task(turns.run(lambda n=n: order.append(n), "a")) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    held.set()
    await asyncio.gather(first, stays)
    turns.close()
    assert order == [2]


async def test_an_error_is_its_callers_alone():
    turns = Turns("test")
    with pytest.raises(ZeroDivisionError):
        await turns.run(lambda: 1 // 0, "a")
    assert await turns.run(lambda: 3, "a") == 3
    turns.close()


async def test_small_texts_pass_large_ones():
    tokenizing = Tokenizing()
    held = threading.Event()
    large = [asyncio.create_task(tokenizing.run(held.wait, 1 << 22)) for _ in range(8)]
    middle = asyncio.create_task(tokenizing.run(held.wait, 1 << 17))
    await asyncio.sleep(0)
    assert await tokenizing.run(lambda: 1, 1000) == 1
    assert await tokenizing.run(lambda: 2, 1000, interactive=True) == 2
    held.set()
    await asyncio.gather(*large, middle)
    tokenizing.close()


async def test_unary_call_shares_the_thread_of_large_texts_alone():
    """Small texts of unary calls wait for none of a stream's; large ones would hold them up."""
    tokenizing = Tokenizing()
    threads = [
        [
            await tokenizing.run(threading.current_thread, size, interactive=unary)
            for size in (1 << 15, 1 << 18, 1 << 22)
        ]
        for unary in (True, False)
    ]
    tokenizing.close()
    (small, *large), (bulk, *others) = threads
    assert large == others
    assert len({small, bulk, *large}) == 4


def test_slices_are_bounded_in_documents_and_characters():
    lengths = [1] * 100 + [30_000, 3000, 50_000, 10]
    documents = [SentDocument(Document(text="x" * length)) for length in lengths]
    cut = [[len(one.text) for one in contents] for _, contents in slices(documents)]
    assert cut == [[1] * 64, [1] * 36 + [30_000], [3000], [50_000], [10]]
    assert [document for some, _ in slices(documents) for document in some] == documents
    assert not list(slices([]))


def longest_of(backend) -> str:
    return max((backend.decode([n]) for n in range(backend.get_vocab_size())), key=len)


def test_bound_never_exceeds_the_tokens(backend):
    bound = TokenBound.of(backend)
    assert bound is not None
    kelvin, hangul, marks = "\u212a", "\u1112\u1161\u11ab", "\u03b1\u0313\u0301\u0345"
    texts = ["a", "word " * 50, "x" * 500, kelvin * 50, hangul * 50, marks * 50, "\U0001f4a5" * 9]
    texts += [" " * 300, "\n" * 300, "<|endoftext|>" * 20, longest_of(backend) * 20]
    for text in texts:
        tokens = len(backend.encode(text, add_special_tokens=False))
        assert 1 <= bound.least(text) <= tokens, text
    assert bound.least("x" * 13 * 100) == 100


def test_the_bound_holds_for_pythias_tokenizer(shared_data):
    backend = Backend.from_file(str(shared_data / "gpt-neox-20b-tokenizer.json"))
    bound = TokenBound.of(backend)
    assert bound is not None
    assert bound.longest == 512
    text = longest_of(backend) * 3
    assert 3 <= bound.least(text) <= len(backend.encode(text))


def test_nfc_shrinks_no_text_to_a_quarter():
    worst = 0.0
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        composed = len(unicodedata.normalize("NFC", chr(code)).encode())
        for form in (chr(code), unicodedata.normalize("NFD", chr(code))):
            worst = max(worst, len(form.encode()) / composed)
    # and a letter of a decomposed form may itself be written in three bytes for two
    assert worst * 4 / 3 <= 4


def changed(backend, **parts) -> TokenBound | None:
    return TokenBound.of(Backend.from_str(json.dumps(json.loads(backend.to_str()) | parts)))


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "x"}, "content": ""}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": {"type": "WordLevel", "vocab": {"a": 0, "u": 1}, "unk_token": "u"}},
    ],
    ids=["lowercase", "dropping", "uncut", "words", "unknown"],
)
def test_dropping_tokenizer_has_no_bound(backend, parts):
    assert changed(backend, **parts) is None


def test_absorbing_token_leaves_no_bound(backend):
    tokens = json.loads(backend.to_str())["added_tokens"]
    assert changed(backend, added_tokens=[tokens[0] | {"rstrip": True}]) is None
    assert changed(backend, normalizer=None).shrinks == 1


class Untouched:
    """A tokenizer's backend that must not be used."""

    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        assert not name.startswith("encode"), "the text was tokenized"
        return getattr(self._backend, name)


def test_text_that_cannot_fit_is_not_tokenized(demo_model):
    tokenizer = Tokenizer(demo_model.tokenizer, 100, bos=0, vocabulary=2048)
    tokenizer._backend = Untouched(tokenizer._backend)
    text = "word " * 1000
    with pytest.raises(InputError, match="at least 386 tokens, BOS included; 100 fit"):
        tokenizer(text, Truncation.ERROR, prepend_bos=True)
    tokenizer = Tokenizer(demo_model.tokenizer, 100, bos=0, vocabulary=2048)
    kept = tokenizer(text, Truncation.KEEP_START, prepend_bos=True)
    assert len(kept.ids) == 100
    assert kept.tokens > 386


async def test_large_texts_hold_nobody_elses_call_up(serve, monkeypatch):
    """A stream's large texts are tokenized while small ones are answered."""
    held, begun = threading.Event(), threading.Event()
    tokenize = Tokenizer.__call__

    def slow(self, text, *args, **settings):
        if len(text) > 100_000:
            begun.set()
            assert held.wait(30)
        return tokenize(self, text, *args, **settings)

    monkeypatch.setattr(Tokenizer, "__call__", slow)
    async with serve() as (_, stub):
        streams = [await opened(stub) for _ in range(8)]
        for stream in streams:
            message = some_documents("x" * 300_000)
            message.ClearField("settings")
            await stream.write(message)
        await eventually(begun.is_set)
        assert (await extract(stub, "word " * 200, mode=1)).vector.tokens > 100
        small = await opened(stub)
        message = some_documents(*["a text"] * 100)
        message.ClearField("settings")
        await small.write(message)
        assert (await small.read()).results[0].vector.tokens
        held.set()
        for stream in (*streams, small):
            stream.cancel()
