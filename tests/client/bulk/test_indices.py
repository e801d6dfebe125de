"""The set of finished documents, checked against Python's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actvec.client.bulk.indices import IndexSet, RepeatedIds

numbers = st.lists(st.integers(0, 3000), max_size=200)


@given(numbers, numbers)
def test_index_set_equals_pythons_set(added, asked):
    indices, model = IndexSet(), set()
    for number in added:
        assert indices.add(number) == (number not in model)
        model.add(number)
    assert len(indices) == len(model)
    for number in [*added, *asked]:
        assert (number in indices) == (number in model)


def test_index_set_lacks_other_objects():
    indices = IndexSet()
    indices.add(0)
    assert -1 not in indices
    assert 1 << 80 not in indices
    assert "0" not in indices
    with pytest.raises(ValueError, match="numbered from 0, not -1"):
        indices.add(-1)


def test_a_million_documents_take_a_bit_each():
    indices = IndexSet()
    for number in range(999_999, -1, -100):
        indices.add(number)
    assert len(indices) == 10_000
    assert len(indices._bits) == 125_000


@given(st.lists(st.sampled_from("abc")))
def test_repeated_ids_are_counted(ids):
    repeated = RepeatedIds()
    for one in ids:
        repeated.add(one)
    first = next((one for at, one in enumerate(ids) if one in ids[:at]), "")
    assert (repeated.count, repeated.first) == (len(ids) - len(set(ids)), first)


def test_ids_are_remembered_up_to_a_number(monkeypatch):
    monkeypatch.setattr("actvec.client.bulk.indices._IDS", 3)
    repeated = RepeatedIds()
    for one in "aabbbbb":
        repeated.add(one)
    assert repeated.count == 1
