"""What `docs/corpora.md` shows is run, in its order and in one folder; not what needs a hub."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from actvec.client.samples import sample_corpus

from .c4 import write_shards

PAGE = Path(__file__).resolve().parents[2] / "docs" / "corpora.md"
FENCE = re.compile(r"(?P<note><!-- not run here: [^\n]*-->\n)?```(console|python)\n(.*?)```", re.S)


def blocks():
    """Kind and text of each block that is to be run."""
    return [(match[2], match[3]) for match in FENCE.finditer(PAGE.read_text()) if not match["note"]]


@pytest.fixture
def folder(tmp_path):
    """The files that the page speaks of."""
    write_shards(tmp_path / "c4", rows=100, most=600)
    (tmp_path / "texts").mkdir()
    for document in sample_corpus():
        (tmp_path / "texts" / f"{document.id}.txt").write_text(document.text)
    shutil.copy(str(files("actvec.server").joinpath("demo", "tokenizer.json")), tmp_path)
    (tmp_path / "texts.pkl").write_bytes(pickle.dumps(["one text", "another"]))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "actvec"
    program.write_text(f"#!{sys.executable}\nfrom actvec.client.cli import main\nmain()\n")
    program.chmod(0o755)
    return tmp_path


def test_what_the_page_shows_works(folder, server_with_mean):
    environment = os.environ | {
        "ACTVEC_TARGET": server_with_mean.target,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }
    kinds = []
    for kind, text in blocks():
        command = ["bash", "-ec", text] if kind == "console" else [sys.executable, "-c", text]
        ended = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"
        assert ended.stdout
        kinds.append(kind)
    assert kinds.count("console") == 7
    assert kinds.count("python") == 3
