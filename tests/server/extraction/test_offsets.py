"""From characters to tokens: numerics.md section 2, spans."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actvec.server.extraction.offsets import covered, trimmed


@pytest.mark.parametrize(
    ("text", "token", "bounds"),
    [
        ("a bc d", (2, 4), (2, 4)),
        ("a bc d", (1, 4), (2, 4)),
        ("a bc d", (2, 5), (2, 4)),
        ("a bc d", (0, 6), (0, 6)),
        ("a   bc", (1, 3), (3, 3)),
        ("a bc d", (2, 2), (2, 2)),
    ],
    ids=["bare", "leading", "trailing", "inside", "blank", "empty"],
)
def test_token_loses_the_space_around_it(text, token, bounds):
    assert trimmed(text, [token]).tolist() == [[*bounds]]


@given(st.text("ab \n\u3000", max_size=9), st.data())
def test_trimming_is_pythons_strip(text, data):
    places = st.integers(0, len(text))
    tokens = data.draw(st.lists(st.tuples(places, places).map(sorted), max_size=5))
    for (start, end), (found, until) in zip(tokens, trimmed(text, tokens), strict=True):
        assert text[found:until] == text[start:end].strip()
        if found == until:
            assert until == end


@settings(max_examples=50)
@given(st.data())
def test_span_covers_the_tokens_that_it_overlaps(data):
    wide = st.tuples(st.integers(0, 8), st.integers(1, 3)).map(lambda at: (at[0], sum(at)))
    tokens, parts = (data.draw(st.lists(wide, max_size=most)) for most in (5, 3))
    characters = {place for start, end in parts for place in range(start, end)}
    found = covered(np.array(tokens, dtype=np.int64).reshape(-1, 2), parts)
    assert found.tolist() == [
        number
        for number, (start, end) in enumerate(tokens)
        if characters.intersection(range(start, end))
    ]


def test_token_without_width_belongs_where_it_ends():
    token, parts = np.array([[4, 4]]), [(3, 4), (3, 5), (4, 5), (2, 3)]
    assert [len(covered(token, [part])) for part in parts] == [1, 1, 0, 0]
