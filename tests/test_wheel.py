"""The wheel, installed as by a user: few packages beside it, and types for a checker."""

import os
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# PEP 561 requires one in each package of a namespace.
TYPED = {
    *("actvec.v1", "actvec.pooling", "actvec.client", "actvec.server"),
    *("actvec.modal", "actvec.ray", "actvec.shards"),
}
MOST_PACKAGES = 15

GOOD = """
from actvec.client import Client, Vector

with Client("127.0.0.1:50051") as client:
    vector: Vector = client.extract("A text.", mode="short")
"""
WRONG = GOOD + "    vector.tokens.upper()\n"

IMPORTS = """
import sys
import actvec.client
print(*sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names))
"""


def run(*command, **options):
    """Run a program that sees nothing of this checkout."""
    hidden = {"PYTHONPATH", "MYPYPATH"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, **options)


REPORT = """
import numpy as np
from actvec.client.analysis.report import Material, write_report

vectors = np.eye(2, 8, dtype="f4").reshape(2, 1, 1, 8)
write_report("report.html", Material(("a", "b"), {"raw": vectors}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ROOT, "-w", folder]
    built = run(*command, "--no-deps", "--no-build-isolation", "--no-index")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("actvec-*.whl")
    return path


def dependencies(package: Distribution, found=None):
    """The distributions that `pip install` of a package without extras installs with it."""
    found = set() if found is None else found
    for line in package.requires or []:
        requirement = Requirement(line)
        other = canonicalize_name(requirement.name)
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if needed and other not in found:
            found.add(other)
            dependencies(distribution(other), found)
    return found


def link(package: Distribution, site: Path):
    """Make an installed package available to another environment, and nothing else."""
    home = Path(package.locate_file(""))
    for file in package.files:
        top = Path(file.parts[0])
        if top.name in {"..", "__pycache__"}:
            continue
        # `google` is a folder of several packages.
        shared = (home / top).is_dir() and not (home / top / "__init__.py").exists()
        if shared and top.suffix != ".dist-info":
            top = Path(*file.parts[:2])
        target = site / top
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(home / top)


@pytest.fixture(scope="module")
def needed(wheel):
    """The packages that the wheel's metadata requires, and their dependencies."""
    metadata = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info/"
    return dependencies(PathDistribution(zipfile.Path(wheel, metadata)))


@pytest.fixture(scope="module")
def user(wheel, needed, tmp_path_factory):
    """The Python of an environment with the wheel, its dependencies, and nothing else."""
    home = tmp_path_factory.mktemp("user")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install"]
    installed = run(*install, "--no-deps", "--no-index", wheel)
    assert installed.returncode == 0, installed.stderr
    (site,) = home.glob("lib/python*/site-packages")
    for name in needed:
        link(distribution(name), site)
    return python


def test_wheel_brings_few_packages(needed):
    assert "numpy" in needed
    assert len({"actvec", *needed}) <= MOST_PACKAGES, needed


def test_client_needs_nothing_else(user):
    imported = run(user, "-c", IMPORTS)
    assert imported.returncode == 0, imported.stderr
    assert {"actvec", "grpc", "numpy"} <= set(imported.stdout.split())
    assert {"rich", "click", "safetensors", "torch"}.isdisjoint(imported.stdout.split())
    program = run(user.with_name("actvec"), "info", "--target=127.0.0.1:1")
    assert program.returncode == 2, program.stderr
    assert "127.0.0.1:1" in program.stderr


def test_report_needs_no_extra(user, wheel, tmp_path):
    written = run(user, "-c", REPORT, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert "plotly.js (cartesian - minified)" in (tmp_path / "report.html").read_text()
    with zipfile.ZipFile(wheel) as archive:
        licenses = [name for name in archive.namelist() if name.endswith("/plotly/LICENSE")]
        assert licenses
        assert b"MIT" in archive.read(licenses[0])


def test_every_package_is_typed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        marked = [Path(name).parent for name in archive.namelist() if name.endswith("/py.typed")]
    assert {".".join(folder.parts) for folder in marked} == TYPED


def test_users_types_are_checked(user, tmp_path):
    check = [sys.executable, "-m", "mypy", "--python-executable", user, "--strict"]
    check += ["--config-file=", f"--cache-dir={tmp_path}"]
    for name, text in (("good.py", GOOD), ("wrong.py", WRONG)):
        (tmp_path / name).write_text(text)
    good = run(*check, "good.py", cwd=tmp_path)
    assert good.returncode == 0, good.stdout
    wrong = run(*check, "wrong.py", cwd=tmp_path)
    assert wrong.returncode == 1, wrong.stdout
    assert '"int" has no attribute "upper"' in wrong.stdout
