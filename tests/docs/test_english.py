"""Plain English in every text that a person meets: pages, help, errors, docstrings, comments."""

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from actvec.client.cli import cli
from actvec.server.program.main import main as server

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"]
PAGES += [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")]
PARTS = ["pooling", "client", "server", "distributed"]
NOTED = [*PARTS, "bench", "examples", "proto", "tests"]

UNITS = (
    "BOS|bytes|column|copy|dollars|file|GFLOP|kB|line|lines|MB|ms|numbers|one|pool|rows|tensor|"
    "tokens|tokens/s|TFLOP|vectors"
)
EACH = "call|cell|document|dollar|file|line|message|row|step|text|token|vector|worker"

# Phrases that made readers stumble, each with the plain way to write it.
AVOID = {
    r"\b(go|goes|going|gone|went|going) on( with| from| after| where| at| elsewhere)\b": "continue",
    r"\breckon": "estimate",
    r"\bput down\b": "durable, committed",
    r"\b(leave|leaves|leaving|left)( \w+){0,3} out\b": "skip, drop",
    r"\bis (said|told)\b|\bsay so\b|\bsaid as well\b": "report, print",
    r"\bwhere you like\b": "optional",
    rf"(?-i:\b({UNITS}) an? ({EACH})\b)": "per",
    r"\bof \d[\d,]* tokens\b(?= (each|in))": "from",
    r"\bwhat is beyond\b": "beyond the limit",
    r"\bfound complete\b": "write atomically",
    r"\breferee\b": "reference",
    r"\blikewise\b": "",
    r"\bwhoever\b": "",
    r"(?<!all )(?<!each )(?<!none )\bof which\b|\bof whom\b": "",
    r"\bwhere (it|they|there|none|one|nothing) (is|are|was|were)\b": "if",
    r"\bis let go\b|\bis let pass\b": "",
    r"\b(is|are) swept up\b": "remove",
    r"\banother one than\b": "differ",
    r"\bis not to be\b|\bto be had\b": "",
    r"\btwo are the least\b": "at least two",
    r"\bof a model counts\b|\bmay be without\b|\bcomes too\b|\bonly stand in the way\b": "",
    r"\bwho asks for it\b|\bthose alike\b|\bthen the engine hangs\b": "",
    r"\badd in other orders\b|\bon its way for as long\b|\bwith an other\b": "",
    r"\bcentr(e|ed|es|ing)\b|\bbehaviour\b|\bcolour\b|\bneighbour\b|\bnormalise": "American",
}
PATTERN = re.compile("|".join(f"(?:{pattern})" for pattern in AVOID), re.IGNORECASE)


def faults(text: str) -> list[str]:
    """The phrases of a text to rewrite, with their surroundings."""
    text = re.sub(r"```.*?```|`[^`\n]*`", " ", text, flags=re.DOTALL)
    text = " ".join(text.split())
    return [text[max(0, at.start() - 40) : at.end() + 40] for at in PATTERN.finditer(text)]


def shown(path: Path) -> Iterator[str]:
    """The texts of a module that its users see: its strings, except docstrings."""
    tree = ast.parse(path.read_text())
    inner = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in inner | docs:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "X" for v in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def notes(path: Path) -> Iterator[str]:
    """The docstrings of a module, and its comments, each block of lines as one text."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield inspect.cleandoc(value.value)
    block: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            yield " ".join(block)
            block = []
        block.append(token.string.lstrip("# "))
        last = token.start[0]
    yield " ".join(block)


def helps(command: click.Command, name: str = "") -> Iterator[tuple[str, str]]:
    """The help texts of a command and of all its subcommands."""
    with click.Context(command, info_name=name) as context:
        yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from helps(each, f"{name} {below}".strip())


def test_test_knows_the_quoted_sentences():
    quoted = [
        "What broke is gone on with by the same command.",
        "Reckon what a pass over INPUT takes",
        "it is not to be gone on with",
        "What of a model counts for its FLOPs",
        "that the file of a mean may be without a chunk",
        "through which a scan of the shard comes too",
        "two are the least",
        "The error that is let pass",
        "a worker that is long gone is swept up",
        "the revision is another one than before",
        "memory, which is not to be had",
        "Of two texts a bar would only stand in the way",
        "Tokens, one a line, of which a caller brings one",
        "Who asks for it restarts servers that do not answer, and a busy one is well",
        "What is beyond waits on the client's side",
        "those alike together or in their own order",
        "found complete or not found",
        "Seconds that a forward pass may take; then the engine hangs",
        "with a `text` and, where you like, an `id` a line or row",
        "two, whose processors add in other orders",
        "It may be on its way for as long as it needs",
    ]
    assert [text for text in quoted if not faults(text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_plain(page):
    assert faults((ROOT / page).read_text()) == []


@pytest.mark.parametrize("program", [cli, server], ids=["actvec", "actvec-server"])
def test_help_is_plain(program):
    assert {name: found for name, text in helps(program) if (found := faults(text))} == {}


def test_help_of_the_server_names_values_plainly():
    ((_, text),) = helps(server)
    assert "--grace SECONDS" in text
    assert not re.search(r"(INTEGER|FLOAT) RANGE", text)


@pytest.mark.parametrize("part", [*(f"{part}/actvec" for part in PARTS), "bench", "examples"])
def test_messages_are_plain(part):
    modules = [path for path in (ROOT / part).rglob("*.py") if "_pb2" not in path.name]
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in modules
        if (wrong := [fault for text in shown(path) for fault in faults(text)])
    }
    assert found == {}


@pytest.mark.parametrize("part", NOTED)
def test_docstrings_are_plain(part):
    found = {
        str(path): wrong
        for path in (one.relative_to(ROOT) for one in (ROOT / part).rglob("*.py"))
        if "_pb2" not in path.name
        if path != Path(__file__).relative_to(ROOT)
        if (wrong := [fault for text in notes(ROOT / path) for fault in faults(text)])
    }
    assert found == {}


def test_contract_is_plain():
    comments = {
        path.name: " ".join(re.findall(r"(?m)^ *// ?(.*)$", path.read_text()))
        for path in (ROOT / "proto/actvec/v1").glob("*.proto")
    }
    assert len(comments) == 5
    assert {name: wrong for name, text in comments.items() if (wrong := faults(text))} == {}


@pytest.mark.parametrize("page", ["README.md", "docs/document.md", "docs/numerics.md"])
def test_pools_are_explained_beside_their_names(page):
    text = (ROOT / page).read_text()
    first = text.index("exp_933")
    assert "6.7%" in text[first - 300 : first + 300]
