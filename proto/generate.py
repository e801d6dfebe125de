"""Generates Python messages, grpc stubs and their types from the contract.

`python proto/generate.py` writes them beside the `.proto` files, to commit; `--check`
writes nothing and fails if the committed code differs from the generated code.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("actvec/v1")


def generate(out: Path) -> None:
    """Write the generated code of every `.proto` under `out`."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).glob("*.proto"))
    # Beside this interpreter, whose environment need not be on the path.
    plugins = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"--proto_path={ROOT}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--mypy_out=quiet:{out}",
        *sources,
    ]
    # Only a service has stubs; the other files have no rpcs.
    stubs = [*arguments[:5], f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"]
    stubs.append(str(PACKAGE / "service.proto"))
    for command in (arguments, stubs):
        if protoc.main(command) != 0:
            raise SystemExit("protoc failed; its message is above")


def generated(root: Path) -> dict[Path, str]:
    """Map every generated file under `root`, by its path from there, to its text."""
    paths = [path for path in (root / PACKAGE).glob("*_pb2*") if path.suffix in {".py", ".pyi"}]
    return {path.relative_to(root): path.read_text() for path in paths}


def main() -> None:
    """Generate, or with `--check` compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        want, have = generated(Path(fresh)), generated(ROOT)
    drifted = sorted(
        str(path) for path in want.keys() | have.keys() if want.get(path) != have.get(path)
    )
    if drifted:
        raise SystemExit(f"generated code is not current, run `make proto`: {', '.join(drifted)}")


if __name__ == "__main__":
    main()
