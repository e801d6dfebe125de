"""The set of documents that are done, held to Python's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actvec.client.bulk.indices import IndexSet

numbers = st.lists(st.integers(0, 3000), max_size=200)


@given(numbers, numbers)
def test_it_is_the_set_of_what_was_added_in_any_order(added, asked):
    indices, model = IndexSet(), set()
    for number in added:
        assert indices.add(number) == (number not in model)
        model.add(number)
    assert len(indices) == len(model)
    for number in [*added, *asked]:
        assert (number in indices) == (number in model)


def test_what_is_no_document_number_is_not_in_it():
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
