"""Documents that are not durable: kept in order, resent after a break, dropped once committed."""

from hypothesis import given
from hypothesis import strategies as st

from actvec.client import Document, Failure
from actvec.client.records.model import UNLIMITED
from actvec.client.streams.uncommitted import Uncommitted


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
def test_uncommitted_documents_are_resent_in_order(steps):
    backlog = Uncommitted()
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
            # A server commits only documents that it received.
            backlog.commit(min(argument, sent))
        assert len(backlog) == backlog.numbered - backlog.committed
        assert backlog.unsent == (sent < backlog.numbered)


def test_documents_are_sent_again_in_order():
    backlog = Uncommitted()
    for number in range(100):
        backlog.add(f"text {number}")
    assert numbers(backlog.next_message()) == list(range(64))
    backlog.commit(3)
    assert numbers(backlog.next_message()) == list(range(64, 100))
    backlog.rewind()
    assert numbers(backlog.next_message()) == list(range(3, 67))
    assert numbers(backlog.next_message()) == list(range(67, 100))


def test_messages_hold_small_documents_or_one_large():
    backlog = Uncommitted()
    for _ in range(100):
        backlog.add("small")
    for _ in range(2):
        backlog.add("x" * (900 << 10))
    sizes = []
    while backlog.unsent:
        sizes.append(len(numbers(backlog.next_message())))
    assert sizes == [64, 36, 1, 1]


def test_backlog_is_full_at_64_mebibytes():
    backlog = Uncommitted()
    assert backlog.limits is UNLIMITED
    for _ in range(64):
        assert not backlog.full
        backlog.add("x" * (1 << 20))
    assert backlog.full
    backlog.commit(64)
    assert not backlog.full
