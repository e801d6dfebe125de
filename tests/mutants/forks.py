"""Runs of pytest in forks of this process, which has imported the project, its tests and torch."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

OUTPUT = Path("output.txt")

# Messages may be defined only once in a process.
KEPT = ("actvec.v1", "tests.mutants", "tests.warm")


def fork_pytest(
    arguments: Sequence[str],
    plugin: object,
    *,
    limit: float,
    mutant: str = "",
    afresh: bool = False,
) -> int | None:
    """Run some tests with a plugin; the output goes to a file.

    Args:
        arguments: Of pytest.
        plugin: Of pytest.
        limit: How many seconds it may take.
        mutant: The active fault.
        afresh: Whether to import the project and its tests again, with the fault.

    Returns:
        The exit code, negative for a signal, or None if they did not end within `limit` seconds.
    """
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.environ["MUTANT_UNDER_TEST"] = mutant
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(output, number)
        if afresh:
            _forget_imports()
        code = int(pytest.main(["-p", "no:cacheprovider", *arguments], plugins=[plugin]))
        sys.stdout.flush()
        os._exit(code)
    began = time.monotonic()
    interrupted = False
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        late = time.monotonic() - began - limit
        if late > 0 and not interrupted:
            # pytest ends the servers that its tests started.
            os.kill(child, signal.SIGINT)
            interrupted = True
        if late > 20:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)
    return None if interrupted else os.waitstatus_to_exitcode(ended[1])


def _forget_imports() -> None:
    for name in list(sys.modules):
        if name.startswith(("actvec.", "tests.")) and not name.startswith(KEPT):
            del sys.modules[name]


class Trial:
    """A plugin that runs some tests in their order, and notes the first that fails."""

    def __init__(self, tests: Sequence[str], out: Path) -> None:
        self._tests, self._out = tests, out

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        items[:] = [found[test] for test in self._tests if test in found]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self._out.exists():
            self._out.write_text(report.nodeid)


def find(mutant: str, tests: Sequence[str], seconds: float, *, afresh: bool) -> str | None:
    """The test that fails with a fault, or how else the tests end; None if all pass.

    Args:
        mutant: The name of the fault.
        tests: In their order.
        seconds: How long they take without it.
        afresh: Whether it may change what an import does.
    """
    if not tests:
        return None
    out = Path("found.txt").absolute()
    out.unlink(missing_ok=True)
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    arguments = ["-x", "--timeout=40", *files]
    limit = 60 + 5 * seconds
    code = fork_pytest(arguments, Trial(tests, out), limit=limit, mutant=mutant, afresh=afresh)
    if code == 0:
        return None
    if out.exists():
        return out.read_text()
    return "no end" if code is None else f"exit code {code}"
