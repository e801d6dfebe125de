"""One server that all of this is thrown at, and the table of what it endured.

    pytest tests/hostile -s --long-form

throws many times as much and prints what became of it; `make hostile` runs it.
"""

from collections.abc import Callable, Iterator

import pytest

from ..conftest import StartServer
from .target import HEADER, Target

Amount = Callable[..., int]


@pytest.fixture(scope="session")
def target(start_server: StartServer) -> Iterator[Target]:
    """The server; what it endured is printed at the end."""
    target = Target(start_server("--idle-seconds=2", "--commit-seconds=0.2"))
    yield target
    print("", HEADER, *(endured.row() for endured in target.endured), sep="\n")


@pytest.fixture(scope="session")
def amount(pytestconfig: pytest.Config) -> Amount:
    """How much of an attack: `amount(short=..., long=...)`."""
    long_form = pytestconfig.getoption("--long-form")

    def choose(*, short: int, long: int) -> int:
        return long if long_form else short

    return choose
