"""Text that others wrote, on a terminal."""

import unicodedata

import pytest

from actvec.client.cli.foreign import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("\u2066\u061c\u200f", r"\u2066\u061c\u200f"),
        ("line\u2028break\x85", r"line\u2028break\x85"),
        ("half \ud800 pair", r"half \ud800 pair"),
        ("\ufefffirst", r"\ufefffirst"),
        ("\U000e0041tag", r"\U000e0041tag"),
    ],
)
def test_shown_escapes_what_terminals_obey(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text", ["naïve", "日本\u3000語", "क\u094d\u200cष", "👩\u200d🔬 ok", r"C:\new", "a b\xa0c"]
)
def test_shown_keeps_every_script(text: str) -> None:
    assert shown(text) == text


def test_shown_leaves_no_control() -> None:
    text = shown("".join(map(chr, range(0x3000))) + "\udfff")
    text.encode()
    assert not {unicodedata.category(one) for one in text} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(one) for one in text} & {
        *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    }


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("ab\x1bcdef", 6, "ab…"),
        ("a\x1b", 5, r"a\x1b"),
        ("a\x1bb", 5, "a…"),
        ("abc", 1, "…"),
        ("", 1, ""),
    ],
)
def test_shown_cuts_between_escapes(text: str, width: int, expected: str) -> None:
    assert shown(text, width) == expected


def test_shown_refuses_no_width() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        shown("text", 0)
