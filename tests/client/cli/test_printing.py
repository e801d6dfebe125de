"""Foreign text on a terminal."""

import ast
import itertools
import json
import unicodedata
from pathlib import Path

import pytest

import actvec.client.cli
from actvec.client.cli.printing import shown


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


def test_verbs_print_through_one_module() -> None:
    """It prints what is escaped, or JSON, in which escape sequences are."""
    ours = Path(actvec.client.cli.__file__).parent.rglob("*.py")
    distributed = (Path(folder).rglob("command.py") for folder in actvec.__path__)
    for module in itertools.chain(ours, *distributed):
        for node in ast.walk(ast.parse(module.read_text())):
            call = ast.unparse(node) if isinstance(node, ast.Call) else ""
            if call.startswith(("click.echo(", "click.secho(", "print(", "sys.stdout")):
                assert module.name == "printing.py", (module, call)
                assert call.startswith(("click.echo(shown(", "click.echo(json.dumps(")), call


ESCAPE = "\x1b]0;owned\x07"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A corpus whose ids, texts and fields try to set the window's title."""
    path = tmp_path / "hostile.jsonl"
    records = [
        {"id": f"{ESCAPE}first", "text": "The first text."},
        {"id": f"{ESCAPE}second", "text": "Another, a second one."},
        {"id": f"{ESCAPE}blank", "text": " "},
        {f"{ESCAPE}field": "no text"},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    "verb",
    [
        ["similarity"],
        ["report", "--mode", "short", "--out", "report.html"],
        ["csv", "--out", "tables"],
        ["verify", "--center", "samples"],
        ["corpus", "inspect"],
        ["stream", "--mode", "short", "--out", "vectors"],
        ["mean", "compute", "--name", "hostile"],
    ],
    ids=lambda verb: verb[0],
)
def test_no_verb_prints_an_escape(program, server_with_mean, hostile, monkeypatch, verb) -> None:
    monkeypatch.chdir(hostile.parent)
    monkeypatch.setenv("ACTVEC_TARGET", server_with_mean.target)
    code, output, errors = program(*verb, hostile.name)
    if verb[0] == "mean":
        # Others may see it too.
        for also in (["mean", "show", "hostile"], ["mean", "delete", "hostile"]):
            output += program(*also)[1]
        assert r"\x1b]0;owned" in output
    assert code == 1, errors
    assert "\x1b" not in output + errors
    assert "\x07" not in output + errors


def test_error_line_is_shown(program, tmp_path) -> None:
    path = tmp_path / "fields.jsonl"
    path.write_text(json.dumps({f"{ESCAPE}field": "no text"}))
    code, _, errors = program("stream", path, "--mode", "short", "--out", tmp_path / "out")
    assert code == 2
    assert errors.startswith("Error: ")
    assert r"\x1b]0;owned\x07field" in errors
    assert "\x1b" not in errors


def test_usage_errors_are_shown(program) -> None:
    code, _, errors = program("stream", "in", "--mode", f"{ESCAPE}x", "--out", "out")
    assert code == 2
    assert "Usage: " in errors
    assert "\x1b" not in errors
