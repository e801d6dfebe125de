"""How many small faults in the core the tests find: `make mutants`.

mutmut makes the faults, such as `<` for `<=`, another number, one argument less. All are put into a
copy of the project, and a variable of the environment says which is active. Each of a sample is
tried in a fork of one process that has imported everything: first against the tests that run its
line, the fastest first, up to the first that fails. A fault that survives them is tried against
the slow ones, and against servers in their own processes.

    python -m tests.mutants --sample 300 --seed 1

The answers are written down as they come, in `build/mutants/`. The same command continues there.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest

from tests.mutants.answers import Answers
from tests.mutants.covering import Covering
from tests.mutants.faults import CORE, Functions, Mutant, plant
from tests.mutants.forks import find
from tests.warm import WarmParent

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ("proto", "pooling", "client", "server", "distributed")
BUILD = ROOT / "build" / "mutants"

# Nothing of it starts a thread.
LIBRARIES = ("torch", "transformers", "transformer_lens", "grpc", "pyarrow", "hypothesis")


def copy_project(folder: Path) -> None:
    """Copy the files that git knows, and have them imported from there."""
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    os.chdir(folder)
    paths = [str(folder), *(str(folder / root) for root in ROOTS)]
    sys.path[:0] = paths
    before = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *before])
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def import_everything(functions: Functions, tests: Iterable[str]) -> set[str]:
    """Import the project and its tests, as pytest does; return the functions that this ran."""
    for library in LIBRARIES:
        import_module(library)
    coverage = functions.coverage()
    with coverage.collect(), redirect_stdout(StringIO()) as output:
        code = pytest.main(["--collect-only", *tests])
    assert code == 0, output.getvalue()
    assert threading.active_count() == 1, threading.enumerate()
    return {name for name, _ in functions.lines(coverage)}


def draw(mutants: Sequence[Mutant], seed: int, sample: int) -> list[Mutant]:
    """A sample that no change of other functions changes."""

    def order(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()

    return sorted(mutants, key=order)[:sample]


def try_all(sample: Sequence[Mutant], covering: Covering, answers: Answers, *, wide: bool) -> None:
    """Try each fault that has no answer yet."""
    for number, mutant in enumerate(sample, 1):
        if answers.settled(mutant, wide=wide):
            continue
        tests = covering.slow(mutant) if wide else covering.quick(mutant)
        seconds = sum(map(covering.seconds, tests))
        afresh = covering.imported(mutant)
        found = find(mutant.name, tests, seconds, afresh=afresh)
        answers.add(mutant, found, wide=wide)
        print(f"{number} of {len(sample)}: {mutant.name}: {found or 'survives'}", flush=True)


def main() -> None:
    """Print each fault of the sample that no test finds, and the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=300, help="How many faults.")
    parser.add_argument("--seed", type=int, default=1, help="Which.")
    parser.add_argument("--only", nargs="*", default=[""], help="Those of paths with one of these.")
    parser.add_argument("--again", action="store_true", help="Try those again that survived.")
    options = parser.parse_args()
    answers = Answers(BUILD / f"seed-{options.seed}.jsonl")
    if options.again:
        answers.forget_survivors()
    with tempfile.TemporaryDirectory(prefix="actvec-mutants-") as copy:
        root = Path(copy).resolve()
        copy_project(root)
        everything, functions = plant(root, BUILD / "files")
        sample = draw(everything, options.seed, options.sample)
        sample = [m for m in sample if any(part in m.path for part in options.only)]
        warm = WarmParent()
        drawn = {mutant.folder for mutant in sample}
        near = {folder: tests for folder, (tests, _) in CORE.items() if folder in drawn}
        others = list(dict.fromkeys(tests for folder in near for tests in CORE[folder][1]))
        imported = import_everything(functions, [*near.values(), *others])
        covering = Covering(BUILD / "covering.json", imported)
        # All of them first: a test that is among the quick ones is not tried as a slow one.
        for tests in (*near.values(), *others):
            covering.collect(root, functions, tests)
        try_all(sample, covering, answers, wide=False)
        try_all(sample, covering, answers, wide=True)
        warm.close()
    survivors = answers.survivors(sample)
    for mutant in survivors:
        print(f"\n{mutant.path}: {mutant.name} survives\n{mutant.difference}")
    amounts, surviving = (Counter(m.folder for m in some) for some in (sample, survivors))
    for name, amount in sorted(amounts.items()):
        print(f"{name}: {amount - surviving[name]} of {amount}")
    found = len(sample) - len(survivors)
    print(f"{found} of {len(sample)} faults of {len(everything)} found")


if __name__ == "__main__":
    main()
