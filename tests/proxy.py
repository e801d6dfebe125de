"""A TCP proxy that breaks the connections it carries, on demand."""

import contextlib
import math
import socket
import struct
import threading
import time


class CuttingProxy:
    """Passes TCP connections on to a server, and breaks them on demand.

    `bytes_back` counts what came from the server, so that a test can cut in mid-stream: with
    `cut_after(n)` the connection that carries the n-th byte from now on is reset.
    """

    def __init__(self, target: str) -> None:
        self._upstream = target
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._budgets: list[int] = []
        self._rate = math.inf
        self.connections = 0
        self.bytes_back = 0
        self.cuts = 0
        self._listen(0)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    def redirect(self, target: str) -> None:
        """Pass later connections on to another server."""
        self._upstream = target

    def cut(self) -> None:
        """Reset all connections now."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        self.cuts += bool(sockets)
        for sock in sockets:
            _reset(sock)

    def half_close(self) -> None:
        """Tell both ends of all connections that the other will say nothing more."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)

    def stall(self, seconds: float) -> None:
        """Pass nothing on for a while."""
        self._flowing.clear()
        threading.Timer(seconds, self._flowing.set).start()

    def throttle(self, bytes_per_second: float) -> None:
        """Pass no more on than that, on each connection and in each direction."""
        self._rate = bytes_per_second

    def cut_after(self, *budgets: int) -> None:
        """Reset the connection that carries that many bytes from the server; then the next."""
        self._budgets = list(budgets)

    def refuse(self) -> None:
        """Accept no connection, and cut what there is."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def accept_again(self) -> None:
        """Undo `refuse`, on the same port."""
        self._listen(self._port)

    def close(self) -> None:
        self._flowing.set()
        self.refuse()

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            host, port = self._upstream.rsplit(":", 1)
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:  # no server there, for now
                _reset(client)
                continue
            self.connections += 1
            with self._lock:
                self._sockets |= {client, server}
            for source, sink, counted in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass, args=(source, sink, counted), daemon=True
                ).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(4096):
                self._flowing.wait()
                time.sleep(len(data) / self._rate)
                if counted:
                    self.bytes_back += len(data)
                if counted and self._spend(len(data)):
                    self.cut()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except ConnectionResetError:
            # As of a killed process that had not read everything.
            _reset(sink)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets.discard(source)

    def _spend(self, count: int) -> bool:
        if not self._budgets:
            return False
        self._budgets[0] -= count
        if self._budgets[0] > 0:
            return False
        self._budgets.pop(0)
        return True


def _reset(sock: socket.socket) -> None:
    # Lingering for no time makes closing send RST, as a killed machine's peer would see it.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
