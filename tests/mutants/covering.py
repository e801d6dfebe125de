"""Which tests run which lines of the core, and how long each takes without a fault."""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.faults import CORE, Functions, Mutant
from tests.mutants.forks import OUTPUT, fork_pytest

# Seconds that the tests of a file may take, and those that are tried on a fault.
FILE, QUICK, SLOW = 900, 15, 90


@dataclass
class Covered:
    """What a test file runs without a fault.

    Attributes:
        digest: Of its text.
        seconds: How long each test took that passed.
        served: Those that start a server in its own process.
        lines: By function of the core, and by its line, the tests that run it.
    """

    digest: str
    seconds: dict[str, float] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)


class Recorder:
    """Notes what each test runs, and writes it down at the end."""

    def __init__(self, functions: Functions, out: Path) -> None:
        self._functions, self._out = functions, out
        self._coverage = functions.coverage()
        self._seconds: dict[str, float] = {}
        self._served: list[str] = []
        self._failed: set[str] = set()

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        if "start_server" in item.fixturenames:
            self._served.append(item.nodeid)
        # Not the clock that tests set forward.
        began = time.perf_counter()
        result = yield
        self._seconds[item.nodeid] = round(time.perf_counter() - began, 3)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        passed = {test: s for test, s in self._seconds.items() if test not in self._failed}
        lines: dict[str, dict[int, list[str]]] = defaultdict(dict)
        for (function, line), tests in self._functions.lines(self._coverage).items():
            lines[function][line] = [test for test in tests if test in passed]
        served = [test for test in self._served if test in passed]
        self._out.write_text(json.dumps({"seconds": passed, "served": served, "lines": lines}))


class Covering:
    """The tests of each line, kept in a file so that only changed test files run again."""

    def __init__(self, kept: Path, imported: set[str]) -> None:
        self._kept, self._imported = kept, imported
        stored: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        self._files = {name: Covered(**content) for name, content in stored.items()}

    def collect(self, root: Path, functions: Functions, folder: str) -> None:
        """Run each test file of a folder that changed since; forget the tests that fail."""
        for file in sorted((root / folder).rglob("test_*.py")):
            name = str(file.relative_to(root))
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if name in self._files and self._files[name].digest == digest:
                continue
            out = root / "covered.json"
            out.unlink(missing_ok=True)
            code = fork_pytest([name, "-m", "not slow"], Recorder(functions, out), limit=FILE)
            content = json.loads(out.read_text()) if out.exists() else {}
            self._files[name] = Covered(digest, **content)
            tests = self._files[name].seconds
            print(f"{name}: {len(tests)} tests, {sum(tests.values()):.1f} s", flush=True)
            if code:
                print(f"  without those that fail already:\n{OUTPUT.read_text()[-1500:]}")
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            self._kept.write_text(
                json.dumps({name: vars(content) for name, content in self._files.items()})
            )

    def seconds(self, test: str) -> float:
        """How long a test takes."""
        return self._files[test.partition("::")[0]].seconds[test]

    def quick(self, mutant: Mutant) -> list[str]:
        """The fastest of the tests that run the lines of a fault, in their order."""
        return self._within(QUICK, self._covering(mutant))

    def slow(self, mutant: Mutant) -> list[str]:
        """The others, and those of servers in their own processes; the fastest first."""
        near, others = CORE[mutant.folder]
        served = {
            test
            for name, file in self._files.items()
            if name.startswith((near, *others))
            for test in file.served
        }
        return self._within(SLOW, (self._covering(mutant) | served).difference(self.quick(mutant)))

    def imported(self, mutant: Mutant) -> bool:
        """Whether an import runs the function of a fault."""
        return mutant.function in self._imported

    def _covering(self, mutant: Mutant) -> set[str]:
        """The tests of its lines, or else of its function, or else of its module."""
        return (
            self._running(mutant.function, mutant.lines)
            or self._running(mutant.function)
            or self._running(f"{mutant.module}.x")
        )

    def _running(self, function: str, lines: Container[int] | None = None) -> set[str]:
        """The tests that run some lines of functions whose names begin so."""
        return {
            test
            for file in self._files.values()
            for name, covered in file.lines.items()
            if name.startswith(function)
            for line, tests in covered.items()
            if lines is None or int(line) in lines
            for test in tests
        }

    def _within(self, seconds: float, tests: Iterable[str]) -> list[str]:
        fastest = sorted(tests, key=lambda test: (self.seconds(test), test))
        ends = accumulate(map(self.seconds, fastest))
        return [test for test, end in zip(fastest, ends, strict=True) if end <= seconds]
