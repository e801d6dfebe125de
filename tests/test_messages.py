"""Messages of the libraries name no command line: programs add their options, services fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor

from actvec.v1 import means_pb2, model_pb2, vectors_pb2

ROOT = Path(__file__).resolve().parents[1]

# The folders of programs; and the module that tells callers which option of the server loads more.
PROGRAMS = {"cli", "program", "requests.py"}

# Rooms of the server that do not know requests.
DEEP = {"model", "engine", "means", "extraction", "jobs", "budget.py", "files.py"}

FLAG = re.compile(r"(?<![\w-])--[a-z]")


def libraries() -> list[Path]:
    return [
        path
        for part in ("pooling", "client", "server")
        for path in sorted((ROOT / part / "actvec").rglob("*.py"))
        if PROGRAMS.isdisjoint(path.relative_to(ROOT).parts)
    ]


def literals(path: Path) -> Iterator[ast.Constant]:
    """Strings in a module, except docstrings."""
    tree = ast.parse(path.read_text())
    read = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in read:
            yield node


def test_libraries_name_no_flag():
    assert len(libraries()) > 100
    found = [
        f"{path}:{node.lineno}: {node.value}"
        for path in libraries()
        for node in literals(path)
        if FLAG.search(node.value)
    ]
    assert not found


def deep_modules() -> list[Path]:
    home = ROOT / "server" / "actvec" / "server"
    return [
        path
        for path in libraries()
        if path.is_relative_to(home) and path.relative_to(home).parts[0] in DEEP
    ]


def words_of_the_contract(file: FileDescriptor) -> Iterator[str]:
    """Paths of fields in messages, `settings.mode`, and names of values, `MODE_SHORT`."""
    for enum in file.enum_types_by_name.values():
        yield from (value.name for value in enum.values)
    for message in file.message_types_by_name.values():
        for field in message.fields:
            if field.message_type is not None:
                yield from (f"{field.name}.{part.name}" for part in field.message_type.fields)


def test_deep_rooms_name_no_field():
    words = {
        word
        for module in (means_pb2, model_pb2, vectors_pb2)
        for word in words_of_the_contract(module.DESCRIPTOR)
    }
    assert {"settings.prepend_bos", "upload.sha256", "TRUNCATION_KEEP_START"} <= words
    found = [
        f"{path}:{node.lineno}: {node.value}"
        for path in deep_modules()
        for node in literals(path)
        if words & set(re.findall(r"[\w.]+", node.value))
    ]
    assert not found


def test_deep_rooms_raise_no_request_error():
    """Their errors describe the inputs of functions; `service` names the field."""
    assert len(deep_modules()) > 40
    for path in deep_modules():
        nodes = ast.walk(ast.parse(path.read_text()))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert not names & {"RequestError", "MessageTooLargeError"}, path


@pytest.mark.parametrize("text", ["--port", "set --port", "(--port)", "'--port 0'"])
def test_flags_are_recognized(text):
    assert FLAG.search(text)
    assert not FLAG.search("a -- b, a--b, ---\n")
