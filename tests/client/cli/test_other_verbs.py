"""Commands from other packages, through entry points."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from actvec.client.cli import cli

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
GROUP = "actvec.commands"


@pytest.fixture
def declared(monkeypatch):
    """The commands that the project declares, as in an installation."""
    points = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, value, GROUP)
        for name, value in PROJECT["project"]["entry-points"][GROUP].items()
    )
    monkeypatch.setattr("actvec.client.cli.entry_points", points.select)
    return points


def test_other_packages_bring_verbs(declared):
    assert declared.names == {"local", "ray"}
    listed = CliRunner().invoke(cli, ["--help"]).output
    assert "\n  ray " in listed
    helped = CliRunner().invoke(cli, ["ray", "vectors", "--help"])
    assert (helped.exit_code, "--workers" in helped.output) == (0, True)


@pytest.mark.usefixtures("declared")
def test_unknown_verb_is_refused():
    assert CliRunner().invoke(cli, ["rey"]).exit_code == 2
