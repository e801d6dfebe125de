"""Bytes and messages that nobody should send, and a way to try many of them."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# Names and texts with a meaning for some part, beside arbitrary ones.
_TELLING = (
    *("", " ", "latest", "fuzz", "../fuzz", "/etc/passwd", "a\0b", "%s%n", "\ufeff", "\U0001f4a5"),
    *("-1", "Infinity", "OK", "UNKNOWN", "a" * 1025, "word " * 3000),
)


def explore(
    strategy: SearchStrategy[Any], check: Callable[[Any], object], amount: int, first: int = 0
) -> None:
    """Check many examples of a strategy; hypothesis shrinks those that fail.

    Args:
        strategy: The strategy to draw from.
        check: Fails if something is wrong.
        amount: Number of examples.
        first: Chooses the examples; another number gives others.
    """

    def hold(example: Any) -> None:
        check(example)

    explored = settings(
        max_examples=amount,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(seed(first)(given(strategy)(hold)))
    explored()


def texts() -> SearchStrategy[str]:
    """Any text in UTF-8."""
    return st.one_of(st.sampled_from(_TELLING), st.text(max_size=60))


def messages(descriptor: Descriptor) -> SearchStrategy[Message]:
    """Messages of a type, each field there or not, its value anywhere in the range of its type."""
    kind = message_factory.GetMessageClass(descriptor)
    return _fields(descriptor).map(lambda values: kind(**values))


def near(message: Message) -> SearchStrategy[Message]:
    """A message unchanged, or with arbitrary values in some fields."""

    def laid_over(other: Message) -> Message:
        mixed = type(message)()
        mixed.CopyFrom(message)
        mixed.MergeFrom(other)
        return mixed

    return st.one_of(st.just(message), messages(message.DESCRIPTOR).map(laid_over))


def raw(kind: type[Message]) -> SearchStrategy[bytes]:
    """Bytes in place of a message: arbitrary, a whole one, or a damaged one."""
    whole = messages(kind.DESCRIPTOR).map(_serialize)
    return st.one_of(st.binary(max_size=400), whole, damaged(whole))


def conversations(kind: type[Message], proper: Sequence[Message]) -> SearchStrategy[list[bytes]]:
    """The messages of a call: a proper call with one mistake, or anything."""
    anything = st.lists(raw(kind), max_size=5)
    spoilt = st.tuples(*(near(message) for message in proper)).map(
        lambda messages: [_serialize(message) for message in messages]
    )
    damaged_last = st.builds(lambda head, last: [*head, last], spoilt, raw(kind))
    return st.one_of(spoilt, damaged_last, anything)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


@st.composite
def damaged(draw: st.DrawFn, originals: SearchStrategy[bytes]) -> bytes:
    """These bytes with some bits flipped, and pieces cut, doubled or inserted."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 32)))
        match draw(st.sampled_from(("turn", "cut", "double", "insert", "end"))):
            case "turn" if begin < len(data):
                data[begin] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[begin:end]
            case "double":
                data[begin:begin] = data[begin:end]
            case "insert":
                data[begin:begin] = draw(st.binary(max_size=16))
            case "end":
                del data[begin:]
    return bytes(data)


def _fields(descriptor: Descriptor) -> SearchStrategy[dict[str, Any]]:
    fields = {field.name: _field(field) for field in descriptor.fields}
    # A few at a time, too: if everything is wrong at once, one error hides the others.
    alone = [st.fixed_dictionaries({name: values}) for name, values in fields.items()]
    return st.one_of(st.just({}), *alone, st.fixed_dictionaries({}, optional=fields))


def _field(field: FieldDescriptor) -> SearchStrategy[Any]:
    one = _value(field)
    return st.lists(one, max_size=4) if field.is_repeated else one


def _value(field: FieldDescriptor) -> SearchStrategy[Any]:
    if field.message_type is not None:
        return _fields(field.message_type)
    if field.enum_type is not None:
        known: Sequence[int] = field.enum_type.values_by_number.keys()
        return st.one_of(st.sampled_from(sorted(known)), st.integers(-(2**31), 2**31 - 1))
    return _SCALARS[field.type]


def _integers(bits: int, *, signed: bool) -> SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(0, 3), st.sampled_from((low, high)), st.integers(low, high))


_SCALARS = {
    FieldDescriptor.TYPE_STRING: texts(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=80),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_INT32: _integers(32, signed=True),
    FieldDescriptor.TYPE_INT64: _integers(64, signed=True),
    FieldDescriptor.TYPE_UINT32: _integers(32, signed=False),
    FieldDescriptor.TYPE_UINT64: _integers(64, signed=False),
}
