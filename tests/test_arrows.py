"""Imports between the parts, and a client free of heavy packages."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each source root, and the packages that it may import.
PARTS = {
    "proto": {"actvec.v1"},
    "pooling": {"actvec.pooling"},
    "client": {"actvec.client", "actvec.pooling", "actvec.v1"},
    "server": {"actvec.server", "actvec.pooling", "actvec.v1"},
    "distributed": {
        *("actvec.shards", "actvec.modal", "actvec.ray"),
        *("actvec.server", "actvec.client", "actvec.pooling", "actvec.v1"),
    },
}

# The packages of `distributed`: the engines share `shards`, and know nothing of each other.
ENGINES = {"shards": set(), "modal": {"actvec.shards"}, "ray": {"actvec.shards"}}

# The rooms of a package: its folders, and the modules beside them. Each may import those of earlier
# rows, and rooms of one row do not import each other.
ROOMS = {
    "server": [
        "config errors",
        "access budget files heap model",
        "rpc engine",
        "means",
        "extraction",
        "jobs telemetry",
        "service",
        "program",
    ],
    "client": [
        "errors files",
        "extras lock records transport",
        "documents messages samples stored workers",
        "corpora streams",
        "api planning",
        "__init__",
        "bulk",
        "findings",
        "analysis",
        "cli",
    ],
}

# Packages that rooms of the server do not know. `service` encodes and decodes the contract's
# messages; `rpc` carries them, `access` and `telemetry` see their calls.
GRPC = ("grpc.", "grpc_health.", "grpc_reflection.", "google.")
CONTRACT = ("actvec.v1.",)
UNKNOWN = {
    **dict.fromkeys(["access", "rpc", "telemetry"], CONTRACT),
    **dict.fromkeys(
        [
            *("config", "errors", "budget", "files", "heap"),
            *("model", "engine", "means", "extraction", "jobs"),
        ],
        CONTRACT + GRPC,
    ),
}

MOST_MODULES = {"cli": 20}


def modules(part: str) -> list[Path]:
    return sorted((ROOT / part / "actvec").rglob("*.py"))


def rooms_of(part: str) -> list[Path]:
    return sorted((ROOT / part / "actvec" / part).rglob("*.py"))


# A string that names one of our modules counts as an import, except as the name of a logger.
MODULE = re.compile(r"actvec(\.\w+)+")
COMMAND = re.compile(r"^-m actvec|python[.\d]* -m actvec|\bactvec[.\w]* import ")

# Modules that start processes.
STARTERS = {"subprocess", "multiprocessing", "runpy", "pty"}
STARTER = re.compile(r"(exec|spawn|posix_spawn)[a-z]*|system|popen|create_subprocess_\w+")


def imports(path: Path) -> Iterator[str]:
    """Names that a module imports anywhere in its text, `actvec.part.module.name` for ours."""
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loggers = {id(a) for c in calls if ast.unparse(c.func).endswith("getLogger") for a in c.args}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if id(node) not in loggers and names_module(node.value) else []
        yield from names


def names_module(text: str) -> bool:
    """Whether a string names one of our modules or packages."""
    place = text.replace(".", "/")
    return MODULE.fullmatch(text) is not None and any(
        (ROOT / part / place).is_dir() or (ROOT / part / f"{place}.py").is_file() for part in PARTS
    )


def starts(path: Path) -> Iterator[str]:
    """The places in a module that start a process, or a part of ours by a string."""
    tree = ast.parse(path.read_text())
    # Text for people is not run.
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] in STARTERS)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "os":
            yield from [node.module] if node.module.split(".")[0] in STARTERS else []
        elif isinstance(node, ast.ImportFrom):
            yield from (one.name for one in node.names if STARTER.fullmatch(one.name))
        elif isinstance(node, ast.Attribute) and STARTER.fullmatch(node.attr):
            yield from [node.attr] if ast.unparse(node.value) in {"os", "asyncio"} else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.value] if id(node) not in docs and COMMAND.search(node.value) else []


@pytest.mark.parametrize("part", PARTS)
def test_parts_import_what_they_may(part):
    assert modules(part)
    for module in modules(part):
        packages = {
            ".".join(name.split(".")[:2]) for name in imports(module) if name.startswith("actvec.")
        }
        assert packages <= PARTS[part], module


@pytest.mark.parametrize("part", PARTS)
def test_parts_start_no_part(part):
    """A command may hide an arrow; no part of the product runs any."""
    for module in modules(part):
        assert not list(starts(module)), module


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "from subprocess import run",
        "import multiprocessing.pool",
        "asyncio.create_subprocess_exec('actvec')",
        "os.execvp('actvec', [])",
        "from os import posix_spawn",
        "run([sys.executable, '-m actvec.client'])",
        "run([sys.executable, '-c', 'from actvec.client.cli import main; main()'])",
    ],
)
def test_started_parts_are_found(line, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert list(starts(path))


def test_imports_by_name_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("importlib.import_module('actvec.client.cli.stream')")
    assert list(imports(path)) == ["actvec.client.cli.stream"]


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_share_only_shards(engine):
    others = {f"actvec.{other}" for other in ENGINES} - {f"actvec.{engine}"} - ENGINES[engine]
    for module in sorted((ROOT / "distributed" / "actvec" / engine).rglob("*.py")):
        found = {".".join(name.split(".")[:2]) for name in imports(module)}
        assert not found & others, module


@pytest.mark.parametrize("part", ROOMS)
def test_rooms_import_earlier_rooms(part):
    row = {room: i for i, rooms in enumerate(ROOMS[part]) for room in rooms.split()}
    home = ROOT / part / "actvec" / part
    for module in rooms_of(part):
        room = module.relative_to(home).parts[0].removesuffix(".py")
        # The package itself names none of its rooms, except for the client's public names.
        for name in imports(module):
            if not name.startswith(f"actvec.{part}."):
                continue
            _, _, *rest = name.split(".")
            other = rest[0] if rest and rest[0] in row else "__init__"
            if other != room:
                assert row[other] < row[room], f"{module} imports {name}"


@pytest.mark.parametrize("room", UNKNOWN)
def test_rooms_know_no_transport(room):
    home = ROOT / "server" / "actvec" / "server"
    names = {room, f"{room}.py"}
    held = [path for path in modules("server") if path.relative_to(home).parts[0] in names]
    assert held
    for module in held:
        for name in imports(module):
            assert not f"{name}.".startswith(UNKNOWN[room]), f"{module} imports {name}"


@pytest.mark.parametrize("part", ROOMS)
def test_rooms_stay_small(part):
    home = ROOT / part / "actvec" / part
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    for folder in folders:
        held = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        most = 6 if folder == home else MOST_MODULES.get(folder.name, 12)
        assert len(held) <= most, folder


@pytest.mark.parametrize("part", sorted(set(PARTS) - {"proto"}))
def test_modules_are_short_or_say_why(part):
    for module in modules(part):
        text = module.read_text()
        if len(text.splitlines()) >= 300:
            assert "Longer than other modules because" in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.parametrize("part", PARTS)
def test_namespace_is_nobodys(part):
    """An `__init__.py` there would hide the other parts from an import."""
    assert not (ROOT / part / "actvec" / "__init__.py").exists()


def test_transformer_lens_is_for_its_engine_alone():
    """Importing it takes seconds, and a server of another engine is ready without it."""
    home = ROOT / "server" / "actvec" / "server"
    lens = {"transformer_lens", "actvec.server.model.bridge", "actvec.server.engine.lens"}

    def imported_at_once(path):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (node.module, *(f"{node.module}.{one.name}" for one in node.names))

    importing = {
        str(path.relative_to(home))
        for path in modules("server")
        if any(
            name in lens or name.startswith("transformer_lens.") for name in imported_at_once(path)
        )
    }
    assert importing == {"model/bridge.py", "engine/lens.py"}


CLIENT_NEEDS_NONE = {
    *("torch", "transformers", "transformer_lens", "safetensors", "datasets", "pandas", "pyarrow"),
    *("matplotlib", "rich", "click", "actvec.server"),
}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("actvec.client", CLIENT_NEEDS_NONE),
        ("actvec.pooling", {"torch", "grpc", "google.protobuf"}),
        ("actvec.server.extraction.scheduler", {"torch", "grpc"}),
        ("actvec.server.program.main", {"torch", "transformers", "transformer_lens"}),
    ],
)
def test_imports_stay_light(module, heavy):
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
