"""Reads a pickle of a list of strings, and nothing else, without unpickling anything.

A pickle is a program, and `pickle.load` runs it. Here its instructions are read one by one, those
that build lists and strings are followed, and any other ends the reading.
"""

import io
import pickletools
from pathlib import Path

from actvec.client.errors import UnsupportedInput

_STRINGS = frozenset({"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_IGNORED = frozenset({"PROTO", "FRAME"})


class _Mark:
    """Where the operands of LIST and APPENDS begin."""


_MARK = _Mark()

_Value = str | list[str] | _Mark


def read_pickled_texts(path: str | Path) -> list[str]:
    """The strings of a pickled list, as every protocol of Python 3 writes it.

    Raises:
        UnsupportedInput: it cannot be read, or holds anything but one list of strings.
    """
    path = Path(path)
    try:
        # All of it: a string that claims to be longer than the file then ends with the file.
        data = path.read_bytes()
    except OSError as error:
        raise UnsupportedInput(f"cannot read {path}: {error.strerror}") from error
    try:
        return _read(data)
    except (ValueError, UnicodeError, IndexError, KeyError, OverflowError) as error:
        raise UnsupportedInput(f"{path} is not a pickled list of strings: {error}") from error


def _read(data: bytes) -> list[str]:
    machine = _Machine()
    for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
        if opcode.name == "STOP":
            return machine.result()
        try:
            machine.follow(opcode.name, argument)
        except (ValueError, IndexError, KeyError) as error:
            reason = error if isinstance(error, ValueError) else "it refers to what is not there"
            raise ValueError(f"{reason} (at byte {position})") from error
    raise ValueError("it has no end")


class _Machine:
    """A stack and a memo, as the pickle machine has, that hold strings and lists of strings."""

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}

    def follow(self, name: str, argument: object) -> None:
        """Follow one instruction.

        Raises:
            ValueError: it makes something other than a list of strings.
            IndexError: it takes what the stack does not hold.
            KeyError: it takes what the memo does not hold.
        """
        if name in _STRINGS:
            self._stack.append(_text(argument))
        elif name in _GETS:
            self._stack.append(self._memo[_number(argument)])
        elif name in _PUTS:
            self._memo[_number(argument)] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name == "MARK":
            self._stack.append(_MARK)
        elif name == "EMPTY_LIST":
            self._stack.append([])
        elif name == "LIST":
            self._stack.append(self._since_mark())
        elif name == "APPEND":
            self._extend([_string(self._stack.pop())])
        elif name == "APPENDS":
            self._extend(self._since_mark())
        elif name not in _IGNORED:
            raise ValueError(f"it holds something else, made by {name}")

    def result(self) -> list[str]:
        """What the pickle is.

        Raises:
            ValueError: not a list.
        """
        if len(self._stack) != 1 or not isinstance(self._stack[0], list):
            raise ValueError("it is something else")
        return self._stack[0]

    def _since_mark(self) -> list[str]:
        strings: list[str] = []
        while (value := self._stack.pop()) is not _MARK:
            strings.append(_string(value))
        return strings[::-1]

    def _extend(self, strings: list[str]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("it appends to something that is no list")
        target += strings


def _text(argument: object) -> str:
    text = _string(argument)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair") from None
    return text


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the list holds something else, {type(value).__name__}")
    return value


def _number(argument: object) -> int:
    # GET and PUT carry a decimal, which genops has parsed already.
    if not isinstance(argument, int):
        raise ValueError("a memo number is not a number")
    return argument
