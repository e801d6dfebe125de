"""Contents of documents that are refused, by their reasons."""

import pytest

from actvec.server.errors import InputError
from actvec.server.extraction.contents import TextContent


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        (("a b", 0, 1), "spans[0].name: is 'a b'; use 1 to 64 letters"),
        (("user", 0, 1), "spans[0].name: is 'user', which only chats have"),
        (("a", 2, 2), "spans[0]: is empty: 'a' is from 2 to 2"),
        (("a", 2, 1), "spans[0]: ends before it begins: 'a' is from 2 to 1"),
        (("a", 0, 5), "spans[0]: ends at 5: 'a' is too long, the text has 4 characters"),
    ],
)
def test_span_lies_within_its_text(span, reason):
    with pytest.raises(InputError) as error:
        TextContent("four", (span,)).check()
    assert str(error.value).startswith(reason)
