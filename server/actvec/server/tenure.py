"""A server behind a tunnel, found by name, that ends when nobody uses it any more."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from actvec.server.announcement import WorkerDirectory, announced, worker_entry
from actvec.server.config import ServerConfig
from actvec.server.errors import StartupError
from actvec.server.server import Server, engine_thread
from actvec.server.worker import Worker

log = logging.getLogger(__name__)

# Seconds in which a server ends that nobody could call yet.
_NOTHING_TO_DO = 1.0

# Seconds between two looks at whether somebody uses the server.
_LOOK_EVERY = 1.0


class Tunnel(Protocol):
    """Where a port of this machine is reached from outside, with TLS; a `modal.Tunnel` is one."""

    host: str
    port: int


OpenTunnel = Callable[[int], AbstractAsyncContextManager[Tunnel]]


@dataclass(frozen=True)
class Tenure:
    """How long a worker serves.

    Attributes:
        idle_seconds: Without a call, after which it ends.
        lifetime_seconds: After which it ends even in use, in good order, before it would be cut.
        heartbeat_seconds: Between two renewals of its entry.
    """

    idle_seconds: float = 300.0
    lifetime_seconds: float = 23 * 3600.0
    heartbeat_seconds: float = 10.0


@dataclass(frozen=True)
class Whereabouts:
    """How a worker is reached and found.

    Attributes:
        open_tunnel: Makes a port of this machine reachable from outside while its context is open.
        directory: Where clients look for workers.
        task_id: Names this process in it.
    """

    open_tunnel: OpenTunnel
    directory: WorkerDirectory
    task_id: str


async def serve_until_unused(
    worker: Worker, config: ServerConfig, whereabouts: Whereabouts, tenure: Tenure
) -> None:
    """Serve a worker's model to those who find it, until nobody has called for the idle time.

    However it ends, cancelled too, the entry goes first, then calls have `config.grace` seconds to
    finish, and the tunnel closes last.

    Args:
        worker: Its model is served, from its data directory.
        config: Who may call, and what is refused; the address is one of this machine.
        whereabouts: How clients find it.
        tenure: How long it serves.

    Raises:
        StartupError: there is no token, so that everybody could call; or an option is not usable.
        EngineLostError: the engine hangs; the process is to end.
        CutShortError: not everything that was taken was done in time.
    """
    if not (config.access.token or config.access.token_file):
        raise StartupError(
            "no tunnel is opened without a token: everybody could call. On Modal it comes from a "
            "secret: modal secret create actvec-token ACTVEC_TOKEN=$(openssl rand -hex 32)"
        )
    thread = engine_thread()
    server = await Server.start(config, worker.engine, worker.loaded, thread, worker.replica)
    losing = asyncio.create_task(server.lost(config.step_timeout))
    try:
        async with _tunnel(server, whereabouts) as tunnel:
            entry = worker_entry(whereabouts.task_id, tunnel.host, tunnel.port)
            try:
                async with announced(whereabouts.directory, entry, tenure.heartbeat_seconds):
                    log.info("serving at https://%s:%d", tunnel.host, tunnel.port)
                    await _until_unused(server, tenure, losing)
            finally:
                if losing.done():
                    await server.abandon()
                else:
                    await server.stop(config.grace)
        if losing.done():
            raise losing.result()
    finally:
        losing.cancel()
        thread.shutdown(wait=False)


@asynccontextmanager
async def _tunnel(server: Server, whereabouts: Whereabouts) -> AsyncIterator[Tunnel]:
    async with AsyncExitStack() as stack:
        try:
            tunnel = await stack.enter_async_context(whereabouts.open_tunnel(server.port))
        except BaseException:
            await server.stop(_NOTHING_TO_DO)
            raise
        yield tunnel


async def _until_unused(server: Server, tenure: Tenure, losing: asyncio.Task[Exception]) -> None:
    """Return when nobody has called for the idle time, at the end of life, or without an engine."""
    ends = asyncio.get_running_loop().time() + tenure.lifetime_seconds
    while not losing.done():
        left = ends - asyncio.get_running_loop().time()
        idle = tenure.idle_seconds - server.idle_for()
        if left <= 0 or idle <= 0:
            log.info("ending: %s", "nobody calls" if left > 0 else "its time is over")
            return
        await asyncio.wait({losing}, timeout=min(_LOOK_EVERY, left, idle))
