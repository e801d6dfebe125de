"""The help of the benchmarks."""

import ast
from pathlib import Path

import pytest

from bench.arguments import add_rounds, arguments

PROGRAMS = sorted((Path(__file__).resolve().parents[2] / "bench").glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_option_is_described(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    options = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    bare = [one for one in options if "help" not in {each.arg for each in one.keywords}]
    assert [ast.unparse(one) for one in bare] == []


def test_help_names_the_command_and_the_defaults():
    parser = arguments("sample", "About.")
    add_rounds(parser, 3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 96], help="tokens")
    parser.add_argument("--bare", action="store_true", help="skip the rest")
    text = " ".join(parser.format_help().split())
    assert "usage: python -m bench.sample " in text
    assert "the median counts (default: 3)" in text
    assert "tokens (default: 64 96)" in text
    assert text.endswith("skip the rest")
