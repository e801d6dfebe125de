"""Times in seconds: a limit, none, or an error at once."""

import math
from fractions import Fraction

import numpy as np
import pytest

from actvec.client import AsyncClient, Client, Waking
from actvec.client.transport.seconds import checked_seconds

TEXT = "A river carries more silt in spring than in late summer."


@pytest.mark.parametrize("unlimited", [None, math.inf, 1e10, 10**12, np.float32("inf")])
def test_no_limit_is_reached(demo_server, unlimited):
    with Client(demo_server.target, timeout=unlimited, retry_for=unlimited) as client:
        assert client.extract(TEXT, mode="short").tokens
        assert len(list(client.stream([TEXT], mode="short"))) == 1
        assert client.list_means() is not None
        client.corpus_mean([TEXT], job="unlimited", name="unlimited")
        assert client.download_mean("unlimited").record.documents == 1


def test_one_call_may_have_no_limit(demo_server):
    with Client(demo_server.target, timeout=1e-9) as client:
        assert client.info(timeout=math.inf).model == "demo"
        assert client.extract(TEXT, mode="short", timeout=1e10).tokens


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize("name", ["timeout", "retry_for"])
@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (-1, ValueError),
        (-math.inf, ValueError),
        (math.nan, ValueError),
        (10**400, ValueError),
        ("60", TypeError),
        (True, TypeError),
        ([60], TypeError),
        (1j, TypeError),
    ],
)
def test_wrong_times_are_refused_at_once(make, name, wrong, kind):
    with pytest.raises(kind, match=rf"^{name} is "):
        make(**{name: wrong})


def test_zero_gives_up_or_is_refused():
    with pytest.raises(ValueError, match="timeout is 0; give more than 0 seconds"):
        Client(timeout=0)
    Client(retry_for=0).close()


def test_wrong_time_of_a_call_is_refused(client):
    with pytest.raises(ValueError, match="timeout is -1"):
        client.info(timeout=-1)
    with pytest.raises(TypeError, match="timeout is a number"):
        client.extract(TEXT, mode="short", timeout="60")


@pytest.mark.parametrize("number", [5, 0.5, Fraction(1, 2), np.float32(0.5), np.int64(5)])
def test_every_kind_of_number_counts(number):
    assert checked_seconds("timeout", number) == float(number)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"seconds": -1}, ValueError),
        ({"seconds": math.nan}, ValueError),
        ({"seconds": "60"}, TypeError),
        ({"every": 0}, ValueError),
        ({"every": math.inf}, ValueError),
    ],
)
def test_waking_refuses_wrong_times(wrong, kind):
    with pytest.raises(kind, match="Waking"):
        Waking(**wrong)


def test_waking_takes_no_limit():
    assert Waking(None).seconds == Waking(math.inf).seconds == math.inf
