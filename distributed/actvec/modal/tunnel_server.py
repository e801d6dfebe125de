"""A server behind a tunnel, found by name, that ends once nobody uses it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from actvec.modal.announcing import WorkerDirectory, announced, is_wanted, worker_entry
from actvec.server.config import ServerConfig
from actvec.server.errors import StartupError
from actvec.server.program.engines import DrivenEngine, engine_thread
from actvec.server.program.server import Server
from actvec.shards.host import ModelHost

log = logging.getLogger(__name__)

# Seconds in which a server ends that nobody could have called yet.
_NOTHING_TO_DO = 1.0

# Seconds between two checks of whether somebody uses the server.
_LOOK_EVERY = 1.0


class Tunnel(Protocol):
    """Where others reach a port of this machine, with TLS; a `modal.Tunnel` is one."""

    host: str
    port: int


OpenTunnel = Callable[[int], AbstractAsyncContextManager[Tunnel]]


@dataclass(frozen=True)
class Tenure:
    """How long a worker serves.

    Attributes:
        idle_seconds: Seconds without a call after which it ends.
        lifetime_seconds: Seconds after which it ends even in use, before Modal would kill it.
        heartbeat_seconds: Seconds between two renewals of its entry.
    """

    idle_seconds: float = 300.0
    lifetime_seconds: float = 23 * 3600.0
    heartbeat_seconds: float = 10.0


@dataclass(frozen=True)
class Whereabouts:
    """How clients find and reach a worker.

    Attributes:
        open_tunnel: Exposes a port of this machine while its context is open.
        directory: The directory in which clients look for workers.
        task_id: The key of this process in it.
        start_id: Id of the start that a client waits for; empty if none does.
    """

    open_tunnel: OpenTunnel
    directory: WorkerDirectory
    task_id: str
    start_id: str = ""


async def serve_until_unused(
    worker: ModelHost, config: ServerConfig, whereabouts: Whereabouts, tenure: Tenure
) -> None:
    """Serve a worker's model to clients that find it, until the idle time passes without a call.

    If no client waits for this start any more, it ends at once. It also ends if its app was
    deployed again: clients look for workers of the new deployment.

    However it ends, even if cancelled, it first removes its entry, then gives calls `config.grace`
    seconds to finish, and closes the tunnel last.

    Args:
        worker: The worker, whose model is served from its data directory.
        config: Access and limits; the address is one of this machine.
        whereabouts: How clients find it.
        tenure: How long it serves.

    Raises:
        StartupError: there is no token, so that anybody could call; or an option is unusable.
        EngineLostError: the engine hangs; the process must end.
        CutShortError: not everything accepted was done in time.
    """
    if not (config.access.token or config.access.token_file):
        raise StartupError(
            "no tunnel is opened without a token: everybody could call. On Modal it comes from a "
            "secret: modal secret create actvec-token ACTVEC_TOKEN=$(openssl rand -hex 32)"
        )
    if whereabouts.start_id and not await is_wanted(whereabouts.directory, whereabouts.start_id):
        log.info("ending: no client waits for this start any more")
        return
    thread = engine_thread()
    engines = [DrivenEngine(worker.engine, thread)]
    server = await Server.start(config, engines, worker.loaded, worker.replica)
    losing = asyncio.create_task(server.lost(config.step_timeout))
    try:
        async with _tunnel(server, whereabouts) as tunnel:
            entry = worker_entry(
                whereabouts.task_id, tunnel.host, tunnel.port, whereabouts.start_id
            )
            try:
                async with announced(
                    whereabouts.directory, entry, tenure.heartbeat_seconds
                ) as superseded:
                    log.info("serving at https://%s:%d", tunnel.host, tunnel.port)
                    await _until_unused(server, tenure, losing, superseded)
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


async def _until_unused(
    server: Server, tenure: Tenure, losing: asyncio.Task[Exception], superseded: asyncio.Event
) -> None:
    """Return after the idle time without a call, at the end of life, or once the engine is lost."""
    ends = asyncio.get_running_loop().time() + tenure.lifetime_seconds
    while not losing.done():
        if superseded.is_set():
            log.info("ending: the app was deployed anew")
            return
        left = ends - asyncio.get_running_loop().time()
        idle = tenure.idle_seconds - server.idle_for()
        if left <= 0 or idle <= 0:
            log.info("ending: %s", "nobody calls" if left > 0 else "its time is over")
            return
        await asyncio.wait({losing}, timeout=min(_LOOK_EVERY, left, idle))
