"""Long texts in pieces: the tokens of the whole, for each tokenizer that says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from actvec.client.samples import sample_corpus
from actvec.server.model.stamp import Truncation
from actvec.server.model.text import pieces as module
from actvec.server.model.text.pieces import can_cut, pieces
from actvec.server.model.text.tokenizer import Tokenizer

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")
MISTRAL = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern, behavior="isolated", **options):
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(Regex(pattern), behavior, **options)
    return pre_tokenizers.Sequence([cut, bytes_])


SPLITTERS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "gpt2-space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    ),
    "llama3": split(LLAMA_3),
    "qwen2": split(QWEN_2),
    "mistral": split(MISTRAL),
    "gpt4o": split(GPT_4O),
}
NOT_KNOWN = {
    "none": None,
    "whitespace": pre_tokenizers.Whitespace(),
    "metaspace": pre_tokenizers.Metaspace(),
    "sentences": split(r"[^.]+\.?"),
    "removed": split(LLAMA_3, "removed"),
    "inverted": split(LLAMA_3, invert=True),
    "bytes": pre_tokenizers.ByteLevel(use_regex=False),
    "more-after": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), pre_tokenizers.Metaspace()]
    ),
    "bytes-first": pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(use_regex=False),
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
        ]
    ),
}


def backend(splitter, normalizer=None):
    made = Backend(models.BPE())
    if splitter is not None:
        made.pre_tokenizer = splitter
    if normalizer is not None:
        made.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator([document.text for document in sample_corpus()], trainer)
    return made


@pytest.fixture(scope="module", params=SPLITTERS)
def known(request):
    return backend(SPLITTERS[request.param], normalizers.NFC())


# Much of what patterns treat specially, around places for a cut.
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003"]
LETTERS = [
    "the",
    "a",
    " the",
    " a",
    "aB",
    "Ba",
    "\u00c9",
    "e\u0301",
    "\u0301",
    "\u1100",
    "\u1161",
    "\u8a9e",
]
OTHERS = ["'s", "'LL", "12", "3", ".", "...", "!\n", "/"]
snippets = st.sampled_from([*SPACES, *LETTERS, *OTHERS]) | st.text(max_size=3)


def ids(backend, text):
    return backend.encode(text, add_special_tokens=False).ids


def assert_same_apart(backend, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", 4)
        parts = list(pieces(text))
    assert "".join(parts) == text
    assert [id_ for part in parts for id_ in ids(backend, part)] == ids(backend, text)
    return parts


@given(st.lists(snippets, max_size=60).map("".join))
def test_pieces_have_the_tokens_of_the_whole(known, text):
    assert_same_apart(known, text)


def test_long_text_is_cut():
    text = " ".join(document.text for document in sample_corpus()) * 20
    parts = list(pieces(text))
    assert max(map(len, parts)) < 40_000 < len(text)
    assert "".join(parts) == text


def test_text_without_a_place_stays_whole():
    assert list(pieces("1 2 " * 50_000)) == ["1 2 " * 50_000]


def test_known_tokenizers_are_cut(known):
    assert can_cut(known)


class Watched:
    """A backend that notes the texts that it encodes."""

    def __init__(self, backend):
        self.backend = backend
        self.texts = []

    def encode_batch_fast(self, texts, **options):
        self.texts += texts
        return self.backend.encode_batch_fast(texts, **options)


def test_tokenizer_cuts_what_it_may(known, monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 100)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=known)
    tokenizer = Tokenizer(wrapped, 1 << 20, bos=None, vocabulary=known.get_vocab_size())
    tokenizer._backend = watched = Watched(tokenizer._backend)
    text = sample_corpus()[0].text
    assert tokenizer(text, Truncation.ERROR).ids.tolist() == ids(known, text)
    assert watched.texts == list(pieces(text))
    assert len(watched.texts) > 1


def test_tokenizer_cuts_only_what_it_may(monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 4)
    made = backend(NOT_KNOWN["none"])
    text = sample_corpus()[0].text
    # Without a splitter, it has tokens of the end of a word and the space behind.
    assert [id_ for part in pieces(text) for id_ in ids(made, part)] != ids(made, text)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made)
    tokenizer = Tokenizer(wrapped, 1 << 20, bos=None, vocabulary=made.get_vocab_size())
    assert tokenizer(text, Truncation.ERROR).ids.tolist() == ids(made, text)


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_unknown_splitters_are_not_cut(name):
    assert not can_cut(backend(NOT_KNOWN[name]))


@pytest.mark.parametrize(
    "normalizer", [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()], ids=repr
)
def test_other_normalizers_are_not_cut(normalizer):
    assert not can_cut(backend(SPLITTERS["gpt2"], normalizer))


@pytest.mark.parametrize(
    "model",
    [models.BPE(dropout=0.1), models.WordLevel({"a": 0}, unk_token="a")],
    ids=["dropout", "words"],
)
def test_other_models_are_not_cut(model):
    made = Backend(model)
    made.pre_tokenizer = SPLITTERS["gpt2"]
    assert not can_cut(made)


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("new york"),
        AddedToken("so "),
        AddedToken("<x>", lstrip=True),
        AddedToken("<x>", rstrip=True),
        AddedToken(" x", single_word=True),
    ],
    ids=repr,
)
def test_tokens_that_could_reach_across_are_not_cut(token):
    made = backend(SPLITTERS["gpt2"])
    made.add_tokens([token])
    assert not can_cut(made)


def test_runs_of_spaces_may_be_tokens():
    made = backend(SPLITTERS["gpt2"])
    made.add_tokens([AddedToken(" " * width) for width in range(2, 25)])
    assert can_cut(made)
    assert len(assert_same_apart(made, "so  many   of the  gaps are of   two" * 9)) > 9
