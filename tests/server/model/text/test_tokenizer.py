"""From text to ids: BOS explicit, nothing cut silently, nothing made of nothing."""

import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from actvec.server.errors import InputError
from actvec.server.model.demo import VOCABULARY
from actvec.server.model.stamp import Truncation
from actvec.server.model.text.tokenizer import Tokenizer

CONTEXT = 16
texts = st.text(min_size=1, max_size=60).filter(lambda text: not text.isspace())


@pytest.fixture(scope="module")
def plain_ids(demo_model):
    """The ids of a text by the tokenizer itself, without special tokens."""
    return lambda text: demo_model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def tokenizer(demo_model):
    return Tokenizer(demo_model.tokenizer, CONTEXT, bos=0, vocabulary=VOCABULARY)


def test_bos_comes_first_and_counts(tokenizer, plain_ids):
    ids = plain_ids("a short text")
    with_bos = tokenizer("a short text", Truncation.ERROR, prepend_bos=True)
    assert with_bos.ids.tolist() == [0, *ids]
    assert with_bos.ids.dtype == np.int64
    assert with_bos.tokens == len(ids) + 1
    assert not with_bos.truncated
    without = tokenizer("a short text", Truncation.ERROR, prepend_bos=False)
    assert without.ids.tolist() == ids


@given(texts, st.sampled_from(Truncation), st.booleans())
def test_a_document_fits_or_fails(tokenizer, plain_ids, text, truncation, prepend_bos):
    ids = plain_ids(text)
    tokens = len(ids) + prepend_bos
    if tokens > CONTEXT and truncation is Truncation.ERROR:
        with pytest.raises(InputError, match=rf"has {tokens} tokens.* {CONTEXT} fit") as error:
            tokenizer(text, truncation, prepend_bos=prepend_bos)
        assert error.value.part == "text"
        return
    document = tokenizer(text, truncation, prepend_bos=prepend_bos)
    bos = [0] if prepend_bos else []
    room = CONTEXT - len(bos)
    kept = ids[:room] if truncation is Truncation.KEEP_START else ids[-room:]
    assert document.ids.tolist() == bos + kept
    assert document.tokens == tokens
    assert document.truncated == (tokens > CONTEXT)


@given(texts)
def test_document_may_end_in_one_token(demo_model, plain_ids, text):
    tokenizer = Tokenizer(demo_model.tokenizer, 1, bos=0, vocabulary=VOCABULARY)
    document = tokenizer(text, Truncation.KEEP_END, prepend_bos=False)
    assert document.ids.tolist() == plain_ids(text)[-1:]


@pytest.mark.parametrize("truncation", [Truncation.KEEP_START, Truncation.KEEP_END])
def test_document_keeps_more_than_bos(demo_model, truncation):
    tokenizer = Tokenizer(demo_model.tokenizer, 1, bos=0, vocabulary=VOCABULARY)
    with pytest.raises(InputError, match="text: has no token left: BOS"):
        tokenizer("a text", truncation, prepend_bos=True)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000"])
def test_nothing_is_not_a_document(tokenizer, text):
    with pytest.raises(InputError, match="text: is empty or blank"):
        tokenizer(text, Truncation.ERROR, prepend_bos=True)


def test_written_special_token_is_read_as_such(tokenizer):
    """As everywhere in the field; a user who minds can see it in the token count."""
    document = tokenizer("<|endoftext|>", Truncation.ERROR, prepend_bos=True)
    assert document.ids.tolist() == [0, 0]


def test_a_tokenizer_without_bos_says_so():
    backend = Backend(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    tokenizer = Tokenizer(
        PreTrainedTokenizerFast(tokenizer_object=backend), CONTEXT, bos=None, vocabulary=2
    )
    with pytest.raises(InputError, match=r"^prepend_bos: .* has no BOS token"):
        tokenizer("word", Truncation.ERROR, prepend_bos=True)
    for prepend_bos in (None, False):
        assert tokenizer("word", Truncation.ERROR, prepend_bos=prepend_bos).ids.tolist() == [1]


@pytest.mark.parametrize("prepend_bos", [False, True])
def test_text_without_a_token_is_refused(prepend_bos):
    backend = Backend(models.BPE({"a": 0, "<s>": 1}, []))
    tokenizer = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), 8, bos=1, vocabulary=2)
    bos = [1] if prepend_bos else []
    known = tokenizer("a?", Truncation.ERROR, prepend_bos=prepend_bos)
    assert known.ids.tolist() == [*bos, 0]
    with pytest.raises(InputError, match="text: has no token") as error:
        tokenizer("???", Truncation.ERROR, prepend_bos=prepend_bos)
    assert error.value.part == "text"


def test_other_threads_run_during_tokenizing(demo_model):
    """Above all the engine's, which asks for the interpreter some hundred times per step."""
    tokenizer = Tokenizer(demo_model.tokenizer, 1 << 20, bos=0, vocabulary=VOCABULARY)
    turns, ran = [0], []

    class Watched:
        """The backend, which notes whether the other thread had a turn while a call of it ran."""

        def __init__(self, backend):
            self._backend = backend

        def __getattr__(self, name):
            def call(*args, **kwargs):
                before = turns[0]
                made = getattr(self._backend, name)(*args, **kwargs)
                ran.append(turns[0] > before)
                return made

            return call

    tokenizer._backend = Watched(tokenizer._backend)

    def tokenize():
        # Again on a busy machine, which runs the other thread only later.
        for _ in range(30):
            if not any(ran):
                tokenizer("a text that takes a while " * 20_000, Truncation.ERROR, prepend_bos=True)

    thread = threading.Thread(target=tokenize)
    interval = sys.getswitchinterval()
    # Nobody is forced to release the interpreter: another thread runs only if one releases it
    # itself.
    sys.setswitchinterval(60)
    try:
        thread.start()
        while thread.is_alive():
            turns[0] += 1
            thread.join(0.001)
    finally:
        sys.setswitchinterval(interval)
    assert any(ran)
