"""docs/development.md against the code: the folders in order, and every name it mentions."""

import ast
import re
from pathlib import Path

import pytest

from tests.test_arrows import ROOMS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "development.md").read_text()
NAMED = re.findall(r"`(\w+/actvec/[\w/]+\.py)` `([\w.]+)`", PAGE)


def section(start):
    return PAGE.split(start)[1].split("\n\n|")[1].split("\n\n")[0]


@pytest.mark.parametrize("part", ROOMS)
def test_page_shows_the_folders(part):
    rows = section(f"In `{part}/actvec/{part}/`:").splitlines()[2:]
    shown = [re.findall(r"`(\w+)(?:/|\.py)`", row.split("|")[1]) for row in rows]
    assert [set(row) for row in shown] == [set(row.split()) for row in ROOMS[part]]


def test_page_names_real_functions():
    assert len(NAMED) > 10
    for path, name in NAMED:
        body = ast.parse((ROOT / path).read_text()).body
        for step in name.split("."):
            found = [node for node in body if getattr(node, "name", None) == step]
            assert found, f"{path} has no {name}"
            body = getattr(found[0], "body", [])


def test_page_names_files_that_exist():
    named = re.findall(r"`((?:pooling|proto|client|server|distributed|tests)/[\w/.]*)`", PAGE)
    assert len(named) > 15
    for path in named:
        assert (ROOT / path).exists(), path
