"""What README and the pages tell people to type is typed: every command and every line of Python.

A block that cannot be run here is marked in the page, with the reason:
`<!-- not run here: needs the hub -->`.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from actvec.client import Client
from actvec.client.samples import sample_corpus

from ..client.c4 import write_shards

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?P<excuse><!-- not run here: [^\n]+ -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PROGRAMS = {"console": ["sh", "-e", "-c"], "python": [sys.executable, "-W", "error", "-c"]}


def blocks(page):
    """Kind and code of each block that is to be run."""
    found = list(BLOCK.finditer(page.read_text()))
    assert {block["kind"] for block in found} <= {"console", "python", "text"}, page
    return [(b["kind"], b["code"]) for b in found if b["kind"] in PROGRAMS and not b["excuse"]]


@pytest.fixture(scope="module")
def demo(start_server):
    """A server, and the mean of the sample corpus on it."""
    server = start_server("--model=demo")
    with Client(server.target) as client:
        return server, client.corpus_mean(sample_corpus(), job="samples-of-the-pages")


@pytest.fixture
def server(demo):
    """The server, whose latest mean is that of the sample corpus, whatever other pages made."""
    server, mean = demo
    yield server
    with Client(server.target) as client:
        for other in client.list_means(all_models=True):
            if other.id != mean.id:
                client.delete_mean(other.id)


@pytest.fixture
def folder(tmp_path):
    """A clone, as far as the pages speak of it, and the files of a user."""
    for name in ("client", "proto", "examples", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    lines = [{"id": f"doc-{n}", "text": f"In {1900 + n} the orchard was sold."} for n in range(40)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_shards(tmp_path / "c4", rows=100, most=600)
    (tmp_path / "texts").mkdir()
    for document in sample_corpus():
        (tmp_path / "texts" / f"{document.id}.txt").write_text(document.text)
    shutil.copy(str(files("actvec.server").joinpath("demo", "tokenizer.json")), tmp_path)
    (tmp_path / "texts.pkl").write_bytes(pickle.dumps(["one text", "another"]))
    return tmp_path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem
)
def test_what_the_page_shows_works(page, folder, server):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for kind, code in blocks(page):
        run = subprocess.run(
            [*PROGRAMS[kind], code.replace("127.0.0.1:50051", server.target)],
            cwd=folder,
            env=os.environ | {"ACTVEC_TARGET": server.target, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, f"{code}\n{run.stdout}\n{run.stderr}"
        assert "Traceback" not in run.stderr


def test_the_figure_of_the_curves_is_that_of_the_weights():
    drawn = ROOT / "docs" / "images" / "curves.svg"
    before = drawn.read_text()
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['draw'](), end='')"
    command = [sys.executable, "-c", program, ROOT / "docs" / "curves.py"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == before
