"""Refuses at once if gRPC would hang forever: in a forked process, and under green threads."""

import gc
import os
import sys
import threading
import time
import weakref
from typing import Any

import grpc.aio

from actvec.client.errors import FailedPrecondition

_FORKED = (
    "this process was forked while an actvec client was connected, and gRPC's threads stayed in"
    ' the process before it: a call would hang. Start processes by the method "spawn"'
    ' (multiprocessing.get_context("spawn"), or multiprocessing_context="spawn" of a torch'
    " DataLoader), or close every client before the fork and make a new one in each process. An"
    " error of a call that is kept also keeps gRPC's threads"
)

# Seconds after the last channel was closed in which gRPC may still be ending its threads. A child
# that is forked in the middle of that hangs now and then.
_ENDING = 0.3


class _Process:
    """The state of gRPC in this process.

    Attributes:
        lost: Whether this process was forked from one in which gRPC was at work. It never works
            here then.
    """

    def __init__(self) -> None:
        self.lost = False
        self._channels: weakref.WeakSet[grpc.aio.Channel] = weakref.WeakSet()
        self._working = False
        self._closed_at = float("-inf")
        self._kept: list[object] = []

    def opened(self, channel: grpc.aio.Channel) -> None:
        """A channel was opened, and counts until it is closed or nothing refers to it any more."""
        self._channels.add(channel)

    def closed(self, channel: grpc.aio.Channel) -> None:
        """A channel was closed."""
        self._channels.discard(channel)
        self._closed_at = time.monotonic()

    def keep(self, inherited: object) -> None:
        """Never destroy an object that this process inherited from its parent.

        Closing a copy of a call or channel would wait for gRPC's threads, which are not here, or
        crash.
        """
        self._kept.append(inherited)

    def before_fork(self) -> None:
        """Note whether gRPC is at work; if it is ending, wait for that."""
        self._working = bool(self._channels) or _polls()
        if self._working and not self._channels:
            # Calls that failed are in cycles with their errors, and hold gRPC until collected.
            gc.collect()
            self._closed_at = time.monotonic()
            self._working = _polls()
        if not self._working:
            time.sleep(max(0.0, self._closed_at + _ENDING - time.monotonic()))

    def after_fork(self) -> None:
        """In the child: count gRPC as lost if it was at work."""
        self.lost = self.lost or self._working
        self._kept += self._channels
        self._channels.clear()


def _polls() -> bool:
    """Whether gRPC's thread for asyncio runs, ours or another library's."""
    return any(thread.name.endswith("(_poll_wrapper)") for thread in threading.enumerate())


PROCESS = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=PROCESS.before_fork, after_in_child=PROCESS.after_fork)


def check_runtime() -> None:
    """Refuse to use gRPC if it would hang.

    Raises:
        FailedPrecondition: this process was forked while gRPC was at work, or gevent or eventlet
            has put green threads in the place of threads, or of `select`.
    """
    if PROCESS.lost:
        raise FailedPrecondition(_FORKED)
    patcher = _patcher()
    if patcher:
        raise FailedPrecondition(
            f"{patcher} has replaced the threads or the select of this process, and "
            "gRPC hangs with either. Use the client in a process without it, or do "
            "not patch those two, as with gevent's monkey.patch_all(thread=False, "
            "select=False)"
        )


def _patcher() -> str:
    """The library of green threads that replaced modules of gRPC and asyncio, if any."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and any(map(gevent.is_module_patched, ("threading", "select"))):
        return "gevent"
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if eventlet is not None and any(map(eventlet.is_monkey_patched, ("thread", "select"))):
        return "eventlet"
    return ""
