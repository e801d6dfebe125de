"""Refuses at once where gRPC would hang for ever: in a forked process, and under green threads."""

import gc
import os
import sys
import threading
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


class _Process:
    """What this process has of gRPC.

    Attributes:
        lost: Whether this process was forked from one in which gRPC was at work. It never works
            here then.
    """

    def __init__(self) -> None:
        self.lost = False
        self._channels: weakref.WeakSet[grpc.aio.Channel] = weakref.WeakSet()
        self._working = False
        self._kept: list[grpc.aio.Channel] = []

    def opened(self, channel: grpc.aio.Channel) -> None:
        self._channels.add(channel)

    def closed(self, channel: grpc.aio.Channel) -> None:
        self._channels.discard(channel)

    def before_fork(self) -> None:
        self._working = bool(self._channels) or _polls()
        if self._working and not self._channels:
            # Calls that failed are in cycles with their errors, and hold gRPC until collected.
            gc.collect()
            self._working = _polls()

    def after_fork(self) -> None:
        self.lost = self.lost or self._working
        # Destroying them here would wait for threads that are not here.
        self._kept += self._channels
        self._channels.clear()


def _polls() -> bool:
    """Whether gRPC's thread for asyncio runs, ours or another library's."""
    return any(thread.name.endswith("(_poll_wrapper)") for thread in threading.enumerate())


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_process.before_fork, after_in_child=_process.after_fork)


def opened(channel: grpc.aio.Channel) -> None:
    """A channel was opened, and counts until it is closed or nothing refers to it any more."""
    _process.opened(channel)


def closed(channel: grpc.aio.Channel) -> None:
    """A channel was closed."""
    _process.closed(channel)


def check_runtime() -> None:
    """Refuse to use gRPC where it would hang.

    Raises:
        FailedPrecondition: this process was forked while gRPC was at work, or gevent or eventlet
            has put green threads in the place of threads, or of `select`.
    """
    if _process.lost:
        raise FailedPrecondition(_FORKED)
    patcher = _patcher()
    if patcher:
        raise FailedPrecondition(
            f"{patcher} has replaced the threads or the select of this process, and gRPC hangs"
            " with either. Use the client in a process without it, or leave those two out of the"
            " patch, as with gevent's monkey.patch_all(thread=False, select=False)"
        )


def _patcher() -> str:
    """The library of green threads that has replaced what gRPC and asyncio need; or none."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and any(map(gevent.is_module_patched, ("threading", "select"))):
        return "gevent"
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if eventlet is not None and any(map(eventlet.is_monkey_patched, ("thread", "select"))):
        return "eventlet"
    return ""
