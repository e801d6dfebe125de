"""`--help` of every command, as a terminal of 80 columns shows it."""

import json
import re

import click
import pytest
from click.testing import CliRunner

from actvec.client.cli import cli
from actvec.client.cli.commands import SERVER, GroupedOption, Verb, Verbs


def commands(command=cli, path=()):
    """Every command of the program, with its name."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


COMMANDS = dict(commands())


def sections(path):
    """The help of a command: its text before the first heading, and then heading -> text."""
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(cli, [*path, "--help"], max_content_width=80)
    assert (shown.exit_code, max(map(len, shown.output.splitlines())) <= 80) == (0, True)
    first, *rest = re.split(r"^(\w+):\n", shown.output, flags=re.M)
    return {"": first} | dict(zip(rest[::2], rest[1::2], strict=True))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_options_are_in_groups(path):
    command = COMMANDS[path]
    assert isinstance(command, Verb | Verbs)
    options = [one for one in command.params if isinstance(one, click.Option)]
    server = {one.opts[0] for one in options if getattr(one, "group", "") == SERVER}
    assert server in (set(), {one.opts[0] for one in cli.params if isinstance(one, GroupedOption)})
    found = sections(path)
    assert ("--target" in found["Options"], SERVER in found) == (False, bool(server))
    if server:
        assert list(found)[-1] == SERVER
        assert set(re.findall(r"^  (--[\w-]+)", found[SERVER], re.M)) == server


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_values_have_plain_names(path):
    assert not re.search(r"(INTEGER|FLOAT|RANGE)\b", "".join(sections(path).values()))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_purpose_comes_first(path):
    lines = sections(path)[""].splitlines()
    assert lines[0].startswith("Usage: ")
    assert re.match(r"  [A-Z]", lines[lines.index("") + 1])


@pytest.mark.parametrize("path", [path for path in COMMANDS if isinstance(COMMANDS[path], Verbs)])
def test_summaries_are_whole(path):
    found = sections(path)
    assert list(found)[1] == "Commands"
    entries = re.split(r"^  (?=\S)", found["Commands"], flags=re.M)[1:]
    assert len(entries) == len(COMMANDS[path].list_commands(click.Context(COMMANDS[path])))
    for entry in entries:
        assert re.search(r"[^.]\.\s*$", entry), entry


def test_verbs_follow_the_order_of_the_work():
    listed = re.findall(r"^  (\w+)", sections(())["Commands"], re.M)
    work = ["corpus", "plan", "info", "mean", "extract", "stream", "direction", "report", "verify"]
    assert [verb for verb in listed if verb in work] == work


@pytest.fixture
def actvec(actvec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ({"id": f"doc-{n}-" + "x" * 90, "text": f"In {1900 + n} it was."} for n in range(3))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    actvec("mean", "compute", "corpus.jsonl", "--name", "piped")
    return actvec


PIPED = {
    "info": (),
    "mean list": (),
    "mean show": ("piped",),
    "similarity": ("corpus.jsonl", "--center", "piped"),
    "verify": ("corpus.jsonl", "--center", "piped"),
    "corpus inspect": ("corpus.jsonl",),
}


@pytest.mark.parametrize("verb", PIPED)
def test_piped_tables_are_plain_lines(actvec, verb):
    code, output, errors = actvec(*verb.split(), *PIPED[verb])
    assert code == 0
    for line in (output + errors).splitlines():
        assert line == line.rstrip()
        assert "\x1b" not in line
    # A name is in one line, however long it is.
    if PIPED[verb][:1] == ("corpus.jsonl",):
        assert "x" * 90 in output


def test_verify_begins_with_the_verdict(actvec):
    _, output, _ = actvec("verify", *PIPED["verify"])
    lines = output.splitlines()
    assert lines[0].startswith("raw - centered = pooled mean holds: 3 documents")
    assert lines[1] == ""
    assert lines[2].split()[:3] == ["document", "pool", "tokens"]
