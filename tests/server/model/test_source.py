"""A directory's revision follows its contents, wherever in them a byte changes."""

import pytest

from actvec.server.model import source
from actvec.server.model.source import directory_revision


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_PIECE_BYTES", 4)
    monkeypatch.setattr(source, "_READ_BYTES", 2)
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"0123456789")
    return tmp_path


@pytest.mark.parametrize("position", range(10))
def test_every_byte_counts(directory, position):
    before = directory_revision(directory)
    changed = bytearray(b"0123456789")
    changed[position] ^= 1
    (directory / "model.safetensors").write_bytes(changed)
    assert directory_revision(directory) != before


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param({"model.safetensors": b"01234567", "other.safetensors": b"89"}, id="divided"),
        pytest.param({"model.safetensors": b"01234567898"}, id="longer"),
        pytest.param({"model.safetensors": b"01234567"}, id="shorter by a piece"),
        pytest.param({"weights.safetensors": b"0123456789"}, id="of another name"),
    ],
)
def test_revision_covers_names_and_contents(directory, contents):
    before = directory_revision(directory)
    (directory / "model.safetensors").unlink()
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    assert directory_revision(directory) != before


def test_other_files_do_not_affect_the_revision(directory):
    before = directory_revision(directory)
    (directory / "README.md").write_text("a model")
    (directory / ".cache").mkdir()
    assert directory_revision(directory) == before
