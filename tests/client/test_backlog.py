"""What is not durable: kept in order, sent again after a break, let go once committed."""

from hypothesis import given
from hypothesis import strategies as st

from actvec.client import Document, Failure
from actvec.client.backlog import Backlog
from actvec.client.model import UNLIMITED


def numbers(message):
    if message.WhichOneof("message") == "skip":
        return [message.skip.sequence]
    return [document.sequence for document in message.documents.documents]


items = st.one_of(
    st.builds(Document, st.text(max_size=5), st.text(max_size=2000)),
    st.builds(Failure, st.text(max_size=5), st.just("DATA_LOSS"), st.text(max_size=2000)),
    st.text(max_size=20),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), items),
        st.tuples(st.just("send"), st.none()),
        st.tuples(st.just("break"), st.none()),
        st.tuples(st.just("commit"), st.integers(0, 60)),
    ),
    max_size=60,
)


@given(steps)
def test_after_a_break_exactly_what_is_not_committed_is_sent_in_order(steps):
    backlog = Backlog()
    sent = 0
    for step, argument in steps:
        if step == "add":
            backlog.add(argument)
        elif step == "send" and backlog.unsent:
            message = numbers(backlog.next_message())
            assert message == list(range(sent, sent + len(message)))
            sent += len(message)
        elif step == "break":
            backlog.rewind()
            sent = backlog.committed
        elif step == "commit":
            # A server commits what it was sent.
            backlog.commit(min(argument, sent))
        assert len(backlog) == backlog.numbered - backlog.committed
        assert backlog.unsent == (sent < backlog.numbered)


def test_messages_hold_many_small_documents_or_one_large():
    backlog = Backlog()
    for _ in range(100):
        backlog.add("small")
    for _ in range(2):
        backlog.add("x" * (900 << 10))
    sizes = []
    while backlog.unsent:
        sizes.append(len(numbers(backlog.next_message())))
    assert sizes == [64, 36, 1, 1]


def test_it_is_full_when_64_mebibytes_are_not_durable():
    backlog = Backlog()
    assert backlog.limits is UNLIMITED
    for _ in range(64):
        assert not backlog.full
        backlog.add("x" * (1 << 20))
    assert backlog.full
    backlog.commit(64)
    assert not backlog.full
