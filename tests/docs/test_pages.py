"""README and the pages, as a reader would follow them: every command and every line of Python runs.

A page marks a block that cannot run here, with the reason: `<!-- not run here: needs the hub -->`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from actvec.client import Client
from actvec.client.samples import sample_corpus
from tests.client.corpora.c4 import write_shards
from tests.client.processes import run_forked
from tests.server.chats import save_chat_model

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?P<excuse><!-- not run here: [^\n]+ -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# Those that take more than three seconds of a processor.
LONG = {
    *("bulk", "corpora", "document", "findings", "grpc", "older-script", "one-pass", "persona"),
    *("probes", "report", "sharing", "steering", "whitening"),
}
SLOW = (pytest.mark.slow, pytest.mark.timeout(300))


def blocks(page):
    """Kind and code of each block to run."""
    found = list(BLOCK.finditer(page.read_text()))
    assert {block["kind"] for block in found} <= {"console", "python", "text"}, page
    return [(b["kind"], b["code"]) for b in found if b["kind"] != "text" and not b["excuse"]]


@pytest.fixture(scope="module")
def demo(start_server):
    """A server, and the mean of the sample corpus on it."""
    server = start_server("--model=demo")
    with Client(server.target) as client:
        return server, client.corpus_mean(sample_corpus(), job="samples-of-the-pages")


@pytest.fixture(scope="module")
def chats(start_server, tmp_path_factory):
    """A server of a small model with a chat template."""
    model = save_chat_model(tmp_path_factory.mktemp("chats"))
    return start_server(f"--model={model}", "--max-layer=last")


@pytest.fixture
def server(demo, page, request):
    """The server, whose latest mean is that of the sample corpus, whatever other pages made."""
    if page.stem in {"one-pass", "persona"}:
        yield request.getfixturevalue("chats")
        return
    server, mean = demo
    yield server
    with Client(server.target) as client:
        for other in client.list_means(all_models=True):
            if other.id != mean.id:
                client.delete_mean(other.id)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Files in the shape of C4's."""
    return write_shards(tmp_path_factory.mktemp("shards") / "c4", rows=100, most=600)


@pytest.fixture
def folder(tmp_path, shards):
    """A clone, as far as the pages need it, and the files of a user."""
    for name in ("client", "proto", "examples", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    lines = [
        {
            "id": f"doc-{n}",
            "text": f"In {1900 + n} the orchard was sold.",
            "label": ("odd", "even")[n % 2],
            "year": 1900 + n,
        }
        for n in range(40)
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_labeled(tmp_path / "labeled.jsonl")
    shutil.copytree(shards, tmp_path / "c4")
    (tmp_path / "texts").mkdir()
    for document in sample_corpus():
        (tmp_path / "texts" / f"{document.id}.txt").write_text(document.text)
    shutil.copy(str(files("actvec.server").joinpath("model", "demo", "tokenizer.json")), tmp_path)
    return tmp_path


def write_labeled(path):
    """Kind and harsh sentences."""
    words = {"kind": ("lovely", "gentle", "welcome"), "harsh": ("awful", "cold", "useless")}
    with path.open("w") as file:
        for number in range(40):
            label = ("kind", "harsh")[number % 2]
            one, other = words[label][number % 3], words[label][(number + 1) % 3]
            text = f"The ferry at {number} was {one}, and everybody on it was {other}."
            file.write(json.dumps({"id": f"doc-{number}", "text": text, "label": label}) + "\n")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=SLOW if page.stem in LONG else (), id=page.stem)
        for page in PAGES
        if blocks(page)
    ],
)
def test_what_the_page_shows_works(page, folder, server, monkeypatch):
    log = folder / "log"
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACTVEC_TARGET", server.target)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    for kind, shown in blocks(page):
        code = shown.replace("127.0.0.1:50051", server.target)
        if kind == "python":
            run = run_forked(f"import warnings; warnings.simplefilter('error')\n{code}", log=log)
        else:
            run = subprocess.run(
                ["sh", "-e", "-c", code],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert run.returncode == 0, f"{code}\n{run.stdout}\n{run.stderr}"
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize("verb", ["corpus inspect", "plan"])
def test_output_is_what_the_page_shows(verb, folder, monkeypatch):
    """Of the commands whose output depends on no model."""
    monkeypatch.chdir(folder)
    page = (ROOT / "docs" / "corpora.md").read_text()
    both = rf"^```console\n(actvec {verb} [^\n]+)\n```\n\n```text\n(.*?)^```$"
    ((command, shown),) = re.findall(both, page, re.MULTILINE | re.DOTALL)
    program = [str(Path(sys.executable).with_name("actvec")), *command.split()[1:]]
    run = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.split() == shown.split(), run.stderr


def test_commands_with_a_token_work(start_server, tmp_path):
    """A server with a token requires it for reflection too."""
    (tmp_path / "token").write_text("sesame\n")
    (tmp_path / "token").chmod(0o600)
    server = start_server("--model=demo", f"--token-file={tmp_path / 'token'}")
    page = ROOT / "docs" / "grpc.md"
    commands = [code for _, code in blocks(page) if "$ACTVEC_TOKEN" in code]
    assert [code.split()[0] for code in commands] == ["buf", "grpcurl"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for code in commands:
        for token, works in (("sesame", True), ("wrong", False)):
            run = subprocess.run(
                ["sh", "-e", "-c", code.replace("127.0.0.1:50051", server.target)],
                env=os.environ | {"ACTVEC_TOKEN": token, "PATH": path},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ('"demo"' in run.stdout) == works, run.stderr


def test_figure_shows_the_weights():
    drawn = ROOT / "docs" / "images" / "curves.svg"
    before = drawn.read_text()
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['draw'](), end='')"
    command = [sys.executable, "-c", program, ROOT / "docs" / "curves.py"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == before
