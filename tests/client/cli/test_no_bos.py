"""Models whose tokenizer has no BOS token, such as Qwen's: served by default, refused with BOS."""

import json
from pathlib import Path

import pytest

from actvec.client import Client, Failure
from actvec.client.errors import InvalidArgument
from tests.conftest import NotStartedError
from tests.words_model import BEYOND, HAS_NO_BOS, SIZE, TIDES, TIDES_IDS, write_words_model


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("words")
    write_words_model(directory, HAS_NO_BOS, beyond=True)
    return start_server(f"--model={directory}")


@pytest.fixture
def client(server):
    with Client(server.target) as client:
        yield client


@pytest.fixture
def actvec(program, server, monkeypatch):
    monkeypatch.setenv("ACTVEC_TARGET", server.target)
    return program


def test_default_is_no_bos(client):
    alone = client.extract(TIDES, mode="short")
    assert (alone.tokens, alone.stamp.prepend_bos) == (len(TIDES_IDS), False)
    texts = [TIDES, f"tides {BEYOND}", TIDES]
    first, unknown, last = client.stream(texts, mode="short", ordered=True)
    assert first.values.tolist() == last.values.tolist() == alone.values.tolist()
    assert isinstance(unknown, Failure)
    assert (unknown.code, unknown.field) == ("INVALID_ARGUMENT", "text")
    assert f"'{BEYOND}' (id {SIZE})" in unknown.message
    assert not client.corpus_mean([TIDES], job="tides").prepend_bos


def test_bos_asked_for_is_refused(client):
    for call in (
        lambda: client.extract(TIDES, mode="short", prepend_bos=True),
        lambda: list(client.stream([TIDES], mode="short", prepend_bos=True)),
        lambda: client.corpus_mean([TIDES], job="asked", prepend_bos=True),
    ):
        with pytest.raises(InvalidArgument, match=r"prepend_bos: is true, .* no BOS token"):
            call()


@pytest.mark.parametrize(
    "command",
    [
        ("extract", f"--text={TIDES}", "--mode=short", "--out=vectors"),
        ("stream", "corpus.jsonl", "--mode=short", "--out=vectors", "--resume"),
        ("mean", "compute", "corpus.jsonl", "--name=commands"),
    ],
    ids=lambda command: command[0],
)
def test_command_asks_for_bos_if_told_to(actvec, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text(json.dumps({"text": TIDES}))
    code, _, errors = actvec(*command, "--bos")
    assert code == 2
    assert "has no BOS token" in errors
    code, _, errors = actvec(*command)
    assert code == 0, errors


def test_unknown_bos_is_one_line(start_server, tmp_path):
    write_words_model(tmp_path / "model", {"bos_token": BEYOND}, beyond=True)
    with pytest.raises(NotStartedError) as ended:
        start_server(f"--model={tmp_path / 'model'}")
    assert ended.value.code == 2
    (line,) = [line for line in ended.value.log.splitlines() if line.startswith("actvec-server:")]
    assert f"BOS token has id {SIZE}, outside the model's embedding of {SIZE} ids" in line
    assert "Traceback" not in ended.value.log
