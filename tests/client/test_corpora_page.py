"""What `docs/corpora.md` shows is run, in its order and in one folder; not what needs a hub."""

import pickle
import re
import shlex
import shutil
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


def commands(text):
    """The words of each command of a block; a line may go on behind a backslash."""
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines()]


@pytest.fixture
def folder(tmp_path):
    """The files that the page speaks of."""
    write_shards(tmp_path / "c4", rows=100, most=600)
    (tmp_path / "texts").mkdir()
    for document in sample_corpus():
        (tmp_path / "texts" / f"{document.id}.txt").write_text(document.text)
    shutil.copy(str(files("actvec.server").joinpath("demo", "tokenizer.json")), tmp_path)
    (tmp_path / "texts.pkl").write_bytes(pickle.dumps(["one text", "another"]))
    return tmp_path


def test_what_the_page_shows_works(folder, program, server_with_mean, monkeypatch):
    monkeypatch.setenv("ACTVEC_TARGET", server_with_mean.target)
    monkeypatch.chdir(folder)
    kinds = []
    for kind, text in blocks():
        kinds.append(kind)
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), {})  # noqa: S102 - our own page
            continue
        for name, *arguments in commands(text):
            assert name == "actvec"
            code, output, errors = program(*arguments)
            assert code == 0, f"{text}\n{output}\n{errors}"
            assert output
    assert (kinds.count("console"), kinds.count("python")) == (7, 3)
