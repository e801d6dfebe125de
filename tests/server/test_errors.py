"""Errors survive the way to other processes: Modal pickles those of its workers."""

import inspect
import pickle

import pytest

from actvec.server import errors


def every_error():
    """One of each, made as the code makes them."""
    arguments = {"layer": 3, "tokens": 12, "method": "/a/B", "kind": "RuntimeError"}
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.PicklableError):
            wanted = inspect.signature(kind.__init__).parameters
            named = {name: arguments.get(name, f"the {name}") for name in wanted if name != "self"}
            yield kind(**named) if {"args", "kwargs"}.isdisjoint(named) else kind("a message")


@pytest.mark.parametrize("error", list(every_error()), ids=lambda error: type(error).__name__)
def test_pickled_error_is_the_same(error):
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
