"""A full disk: the job reports what is durable, and the same command continues given room."""

import json
import os
import subprocess
import sys

import pytest

from actvec.client.bulk.failures import ErrorLog
from tests.client.bulk.jobs import COUNT, FORMATS
from tests.client.bulk.saved import read_back
from tests.client.processes import run_forked

# A limit on the bytes of a file: the system writes a part, and refuses the rest.
PROGRAM = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from actvec.client.cli import main
main(sys.argv[2:])
"""


@pytest.fixture
def limited(demo_server, corpus, tmp_path):
    """Run `actvec stream` with a limit on the bytes of a file."""

    def run(layout, limit, out=tmp_path / "out"):
        rows = [] if layout == "files" else ["--rows-per-file=64"]
        return run_forked(
            PROGRAM,
            *(limit, "stream", corpus, "--out", out, "--resume", "--json", "--mode=short"),
            *("--format", layout, *rows, "--save-every=0", "--ordered"),
            *("--target", demo_server.target),
            log=tmp_path / "log",
        )

    return run


def lines_of_long_ids(path, number):
    """One document whose metadata take more room than those of others."""
    lines = path.read_text().splitlines(keepends=True)
    lines[number] = json.dumps(json.loads(lines[number]) | {"id": "x" * 1000}) + "\n"
    path.write_text("".join(lines))


@pytest.mark.parametrize("layout", FORMATS)
def test_full_disk_costs_only_the_rest(limited, corpus, tmp_path, layout):
    out = tmp_path / "out"
    if layout == "files":
        lines_of_long_ids(corpus, 30)
    broken = limited(layout, {"files": 2000, "shards": 5000, "parquet": 6000}[layout])
    assert broken.returncode == 2, broken.stderr
    assert len(broken.stderr.splitlines()) == 1
    assert broken.stderr.startswith(f"Error: File too large: {out}/")
    durable = len(read_back(out, layout))
    assert 0 < durable < COUNT - 3
    assert f"; {durable} vectors are durable; --resume computes the rest" in broken.stderr
    continued = limited(layout, 1 << 30)
    assert continued.returncode == 1, continued.stderr
    summary = json.loads(continued.stdout)
    assert (summary["vectors"], summary["failed"], summary["lost"]) == (COUNT - 3, 3, 0)
    assert durable <= summary["resumed"] < COUNT
    indices = [vector.index for vector in read_back(out, layout)]
    assert sorted(indices) == [number for number in range(COUNT) if number % 20]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs leave to mount a small disk")
    yield place
    # Lazily: a reading thread of pyarrow may hold the last file for a moment after its answer.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("layout", FORMATS)
def test_job_continues_after_room_is_made(limited, small_disk, layout):
    filler, out = small_disk / "filler", small_disk / "out"
    filler.write_bytes(bytes(96 << 10))
    for _ in range(2):
        broken = limited(layout, 1 << 30, out)
        assert broken.returncode == 2, broken.stderr
        assert len(broken.stderr.splitlines()) == 1
        assert broken.stderr.startswith(f"Error: No space left on device: {out}")
    durable = len(read_back(out, layout))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    continued = limited(layout, 1 << 30, out)
    assert continued.returncode == 1, continued.stderr
    summary = json.loads(continued.stdout)
    assert (summary["vectors"], summary["failed"], summary["lost"]) == (COUNT - 3, 3, 0)
    assert summary["resumed"] >= durable
    assert len(read_back(out, layout)) == COUNT - 3


ERRORS = """
import resource, sys
from pathlib import Path
from actvec.client import Failure
from actvec.client.bulk.failures import ErrorLog

def fail(index):
    errors.write(Failure(index=index, id="d", code="INVALID_ARGUMENT", message="x" * 200))

errors = ErrorLog(Path(sys.argv[1]), resume=False)
fail(0)
whole = errors.path.stat().st_size
# Room for half a line, which the system writes before it refuses the rest.
resource.setrlimit(resource.RLIMIT_FSIZE, (whole * 3 // 2, resource.RLIM_INFINITY))
try:
    fail(1)
except OSError as error:
    assert error.filename == str(errors.path), error
else:
    raise SystemExit("not refused")
assert errors.path.stat().st_size == whole
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
fail(2)
"""


def test_failure_is_listed_whole_or_not(tmp_path):
    path = tmp_path / "errors.jsonl"
    subprocess.run([sys.executable, "-c", ERRORS, path], check=True, timeout=60)
    assert list(ErrorLog(path, resume=True).indices()) == [0, 2]
