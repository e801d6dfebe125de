"""Which part may import which: the arrows of the design, and nothing that weighs a client down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "proto": {"actvec.v1"},
    "pooling": {"actvec.pooling"},
    "client": {"actvec.client", "actvec.pooling", "actvec.v1"},
    "server": {"actvec.server", "actvec.pooling", "actvec.v1"},
}


def imported(path: Path) -> set[str]:
    """The packages of ours, as `actvec.part`, that a module imports anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {".".join(name.split(".")[:2]) for name in names if name.split(".")[0] == "actvec"}
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_arrows(part):
    modules = sorted((ROOT / part / "actvec").rglob("*.py"))
    assert modules
    for module in modules:
        assert imported(module) <= ALLOWED[part], module


@pytest.mark.parametrize("part", ALLOWED)
def test_the_namespace_is_nobodys(part):
    """One `__init__.py` there would hide the other three parts from an import."""
    assert not (ROOT / part / "actvec" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("actvec.client", {"torch", "transformers", "pandas", "matplotlib", "rich", "click"}),
        ("actvec.pooling", {"torch", "grpc", "google.protobuf"}),
        ("actvec.server.main", {"torch", "transformers", "transformer_lens"}),
    ],
)
def test_imports_stay_light(module, heavy):
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
