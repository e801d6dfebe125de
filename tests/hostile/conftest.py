"""One server under all attacks, and a table of the results.

    pytest tests/hostile -s --long-form

attacks many times as much and prints the table; `make hostile` runs it.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import StartServer
from tests.hostile.target import HEADER, Target

Amount = Callable[..., int]


@pytest.fixture(scope="session")
def target(start_server: StartServer, amount: Amount) -> Iterator[Target]:
    """The server; its results are printed at the end."""
    # On a busy machine, even a proper caller may be silent for two seconds.
    idle_seconds = amount(short=600, long=2)
    target = Target(start_server(f"--idle-seconds={idle_seconds}", "--commit-seconds=0.2"))
    yield target
    print("", HEADER, *(endured.row() for endured in target.endured), sep="\n")


@pytest.fixture(scope="session")
def amount(pytestconfig: pytest.Config) -> Amount:
    """The size of an attack: `amount(short=..., long=...)`."""
    long_form = pytestconfig.getoption("--long-form")

    def choose(*, short: int, long: int) -> int:
        return long if long_form else short

    return choose
