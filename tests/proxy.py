"""A TCP proxy that breaks the connections it carries, on demand."""

import contextlib
import math
import socket
import struct
import threading


class CuttingProxy:
    """Passes TCP connections on to a server, and breaks them on demand.

    `bytes_back` counts bytes from the server, so that a test can cut in mid-stream: `cut_after(n)`
    resets the connection that carries the n-th byte from now.

    Attributes:
        target: Its own address, which stays its own while it refuses connections.
        held: Whether data waits here, from `hold_after` to `release`.
    """

    def __init__(self, target: str) -> None:
        self._upstream = target
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self.held = threading.Event()
        self._hold_in = math.inf
        self._budgets: list[int] = []
        self.connections = 0
        self.bytes_back = 0
        self.cuts = 0
        # While nobody listens, it keeps the port from everybody else.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.target = "{}:{}".format(*self._reserved.getsockname())
        self._listen()

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
        """Tell both ends of all connections that the other will send nothing more."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)

    def stall(self, seconds: float) -> None:
        """Pass nothing on for a while."""
        self._flowing.clear()
        ending = threading.Timer(seconds, self._flowing.set)
        ending.daemon = True
        ending.start()

    def hold_after(self, count: int) -> None:
        """Pass so many bytes on, in both directions together, and then nothing."""
        with self._lock:
            self._hold_in = count

    def release(self) -> None:
        """Undo `hold_after`."""
        with self._lock:
            self._hold_in = math.inf
        self.held.clear()
        self._flowing.set()

    def cut_after(self, *budgets: int) -> None:
        """Reset the connection that carries that many bytes from the server; then the next."""
        self._budgets = list(budgets)

    def refuse(self) -> None:
        """Refuse new connections, and cut existing ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def accept_again(self) -> None:
        """Undo `refuse`, on the same port."""
        self._listen()

    def close(self) -> None:
        self.release()
        with contextlib.suppress(OSError):  # it refuses already
            self.refuse()
        self._reserved.close()

    def _listen(self) -> None:
        self._listener = socket.create_server(self._reserved.getsockname())
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
            if listener.fileno() < 0:
                # Accepted while `refuse` ran, which may not have seen it.
                self.cut()
                return
            for source, sink, counted in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass, args=(source, sink, counted), daemon=True
                ).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(4096):
                self._hold(len(data))
                self._flowing.wait()
                if counted:
                    self.bytes_back += len(data)
                if counted and self._spend(len(data)):
                    self.cut()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except ConnectionResetError:
            # As from a killed process that had not read everything.
            _reset(sink)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets.discard(source)

    def _hold(self, count: int) -> None:
        with self._lock:
            self._hold_in -= count
            if self._hold_in < 0:
                self._flowing.clear()
                self.held.set()

    def _spend(self, count: int) -> bool:
        with self._lock:
            if not self._budgets:
                return False
            self._budgets[0] -= count
            if self._budgets[0] > 0:
                return False
            self._budgets.pop(0)
            return True


def _reset(sock: socket.socket) -> None:
    # With zero linger, closing sends RST, as a killed machine's peer would see it.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
