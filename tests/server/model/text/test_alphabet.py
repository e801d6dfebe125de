"""Characters that a tokenizer drops: found exactly when the places of its tokens are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from actvec.server.model.text.alphabet import Alphabet

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def bpe(vocabulary, pre_tokenizer=None, **options):
    ids = {token: id_ for id_, token in enumerate(vocabulary)}
    made = Tokenizer(models.BPE(ids, [], **options))
    if pre_tokenizer is not None:
        made.pre_tokenizer = pre_tokenizer
    return made


def byte_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


NONE_DROPPED = {
    "bytes": bpe(sorted(pre_tokenizers.ByteLevel.alphabet()), byte_level()),
    "fallback": bpe(["a", *BYTES], byte_fallback=True),
    "unknown": bpe(["a", "[UNK]"], unk_token="[UNK]"),
    "words": Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")),
    "unigram": Tokenizer(models.Unigram([("a", 0.0), ("[UNK]", -1.0)], unk_id=1)),
}


@pytest.mark.parametrize("name", NONE_DROPPED)
def test_most_tokenizers_drop_nothing(name):
    assert Alphabet.of(NONE_DROPPED[name]) is None


def some_bytes():
    made = bpe(["a", "b", "\u0120", "\u00e6"], byte_level())
    made.decoder = decoders.ByteLevel()
    return made


DROPPING = {
    "letters": bpe("ab "),
    "words": bpe("ab", pre_tokenizers.Whitespace()),
    "bytes": some_bytes(),
    "some fallback": bpe(["a", "b", *BYTES[:200]], byte_fallback=True),
    "no fallback": bpe(["a", "b", *BYTES]),
    "letters of bytes": bpe(sorted(pre_tokenizers.ByteLevel.alphabet())),
    "pieces": bpe(["a", "##a", "##b"], continuing_subword_prefix="##"),
    "ends": bpe(["a", "b", "b</w>"], pre_tokenizers.Whitespace(), end_of_word_suffix="</w>"),
}


@pytest.mark.parametrize("name", DROPPING)
@given(text=st.text("ab \u6f6ec", min_size=1, max_size=9))
def test_without_a_dropped_character_places_are_right(name, text):
    tokenizer = DROPPING[name]
    if Alphabet.of(tokenizer).dropped(tokenizer, text) is None:
        (encoding,) = tokenizer.encode_batch([text])
        written = "".join(text[start:end] for start, end in encoding.offsets)
        assert written.split() == text.split() or written == "".join(text.split())
        assert len(encoding.ids) == len(written)


@pytest.mark.parametrize(
    ("name", "text", "dropped"),
    [
        ("letters", "a\u6f6eb", "\u6f6e"),
        ("letters", "ab ba", None),
        ("words", "a\nb", None),
        ("words", "acb", "c"),
        ("bytes", "a\u6f6eb", "\u00bd"),
        ("pieces", "b", "b"),
        ("pieces", "ab", None),
        ("ends", "ba", "a"),
        ("ends", "ab", None),
    ],
)
def test_dropped_character_is_named(name, text, dropped):
    assert Alphabet.of(DROPPING[name]).dropped(DROPPING[name], text) == dropped


def test_added_tokens_and_what_a_normalizer_removes_are_not_dropped():
    tokenizer = bpe("ab")
    # As the tokenizer, it finds the longest one.
    tokenizer.add_special_tokens(["<s", "<s>", "<|s|>"])
    tokenizer.normalizer = normalizers.Replace("c", "")
    alphabet = Alphabet.of(tokenizer)
    assert alphabet.dropped(tokenizer, "<s>acb<s>b") is None
    assert alphabet.dropped(tokenizer, "<s>a<b") == "<"
    assert alphabet.dropped(tokenizer, "a<b<|s|>b") == "<"
