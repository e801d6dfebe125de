"""Whether anybody uses a server."""

import time

import grpc

from actvec.server.rpc.call import Call, CallListener


class Usage(CallListener):
    """Knows when the service was last called.

    Calls of health and reflection are not use, and neither is a call that was refused for want of a
    token: a stranger keeps no GPU awake.
    """

    def __init__(self) -> None:
        self._running = 0
        self._last = time.monotonic()

    def idle_for(self) -> float:
        """Seconds since the last call ended, or since the start; 0 while one runs."""
        return 0.0 if self._running else time.monotonic() - self._last

    def began(self, call: Call) -> None:
        """A call came; whether it counts shows at its end."""
        self._running += call.of_service

    def ended(self, call: Call) -> None:
        """It is over."""
        if call.of_service:
            self._running -= 1
            if call.code is not grpc.StatusCode.UNAUTHENTICATED:
                self._last = time.monotonic()
