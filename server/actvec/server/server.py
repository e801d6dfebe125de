"""The server's life: a model, a port, health, reflection, and an orderly end."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from actvec.server.calls.access import Access
from actvec.server.calls.budget import Budget, Tidying
from actvec.server.calls.interceptor import CallInterceptor
from actvec.server.config import ServerConfig
from actvec.server.endpoint import Endpoint
from actvec.server.engine import Engine
from actvec.server.engines import load_engine
from actvec.server.errors import CutShortError, EngineLostError, StartupError
from actvec.server.extractor import Extractor
from actvec.server.means.jobs import Jobs
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.store import MeanStore
from actvec.server.memory import give_back_memory, keep_freed_memory, step_budget
from actvec.server.model import LoadedModel
from actvec.server.observe.observation import Observation
from actvec.server.ownership import Ownership
from actvec.server.runner import StepRunner
from actvec.server.service import ActivationVectorService
from actvec.server.tokens import Tokenizer
from actvec.server.watchdog import engine_lost
from actvec.v1 import service_pb2

log = logging.getLogger(__name__)

# Seconds in which those who watch health hear that it is over.
_WATCHERS_HEAR = 1.0

# Seconds that an end may take in any case: one without grace takes a moment, too.
_END = 1.0

SERVICE = service_pb2.DESCRIPTOR.services_by_name["ActivationVectorService"]


def engine_thread() -> Executor:
    """The one thread that loads a model and runs it.

    OpenMP keeps workers for every thread that it is called from. Where they are more than there are
    cores, as with a model that one thread loads and another runs, they sleep between products
    instead of spinning, and a CPU computes a tenth slower.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="actvec-engine")


class Server:
    """A running server. `Server.start` makes one, `stop` ends it.

    Attributes:
        port: Where it is called.
        metrics_port: Where Prometheus asks; None without metrics.
    """

    def __init__(
        self,
        access: Access,
        observation: Observation,
        endpoint: Endpoint,
        service: ActivationVectorService,
        runner: StepRunner,
        *,
        ownership: Ownership | None,
    ) -> None:
        self.port = endpoint.port
        self.metrics_port = observation.metrics_port
        self._access = access
        self._observation = observation
        self._endpoint = endpoint
        self._service = service
        self._runner = runner
        self._ownership = ownership

    @classmethod
    async def start(
        cls,
        config: ServerConfig,
        engine: Engine,
        loaded: LoadedModel,
        thread: Executor,
        replica: Replica = NO_REPLICA,
        *,
        ownership: Ownership | None = None,
    ) -> "Server":
        """Listen and serve; health is SERVING when this returns.

        A data directory without a replica is the server's own until it has ended.

        Args:
            config: What to serve, and how.
            engine: What computes.
            loaded: Its model.
            thread: Of one thread, which runs the engine; on a CPU the one that loaded it.
            replica: Where the data directory is shared with other machines.
            ownership: The hold on the data directory, which the server takes over; None takes it
                here.

        Raises:
            StartupError: an address cannot be listened on, a file of the options not be used, a
                step not be held in memory, BOS be an id that the model does not have, or another
                server uses the data directory.
        """
        if ownership is None and replica is NO_REPLICA:
            ownership = Ownership.take(config.data_dir)
        try:
            return await cls._start(config, engine, loaded, thread, replica, ownership=ownership)
        except BaseException:
            if ownership is not None:
                ownership.release()
            raise

    @classmethod
    async def _start(
        cls,
        config: ServerConfig,
        engine: Engine,
        loaded: LoadedModel,
        thread: Executor,
        replica: Replica,
        *,
        ownership: Ownership | None,
    ) -> "Server":
        access = Access.of(config)
        limits = config.limits
        context = min(engine.card.context, limits.document_tokens or engine.card.context)
        tokenizer = Tokenizer(
            loaded.tokenizer, context, bos=loaded.bos, vocabulary=loaded.vocabulary
        )
        step_tokens = await asyncio.get_running_loop().run_in_executor(
            thread, step_budget, engine, limits.step_tokens, context
        )
        observation = Observation(config.watch, step_tokens, SERVICE.full_name)
        runner = StepRunner(engine, observation.stepped)
        extractor = Extractor(runner, tokenizer, limits, step_tokens)
        try:
            store = MeanStore(config.data_dir / "means", config.limits.store_bytes, replica)
            if ownership is not None:
                store.sweep()
        except OSError as error:
            raise StartupError(f"cannot use --data-dir {config.data_dir}: {error}") from error
        jobs = Jobs(config.data_dir / "jobs", extractor, limits.lease_seconds, replica)
        service = ActivationVectorService(engine, extractor, store, jobs)
        budget = Budget(limits, Tidying(give_back_memory))
        interceptors = [
            CallInterceptor(access.tokens, config.limits, observation.listeners, budget),
            *observation.interceptors,
        ]
        endpoint = Endpoint(config, access, service, SERVICE, interceptors)
        observation.start(engine, extractor)
        await endpoint.open()
        # Last, since nothing that fails then leaves a thread that keeps the program alive.
        extractor.start(thread)
        card = engine.card
        log.info(
            "%s, revision %s, layers %s, on %s in %s; steps of %d tokens; means in %s",
            *(card.model, card.revision, ",".join(map(str, card.layers)), card.device, card.dtype),
            *(step_tokens, config.data_dir),
        )
        return cls(access, observation, endpoint, service, runner, ownership=ownership)

    def reload(self) -> None:
        """Read tokens and certificates again; what cannot be used is logged and left as it was."""
        self._access.reload()

    def idle_for(self) -> float:
        """Seconds since the last call of the service ended, or since the start; 0 in a call."""
        return self._observation.usage.idle_for()

    async def lost(self, step_timeout: float) -> EngineLostError:
        """Return when the engine hangs, or its device is lost."""
        return await engine_lost(self._runner, step_timeout)

    async def stop(self, grace: float) -> None:
        """Drain: say NOT_SERVING, finish what was accepted within `grace` seconds, end the engine.

        The engine goes last: calls in flight need it.

        Raises:
            CutShortError: what was taken was not done in time; beside `grace` for calls there is as
                much again for what calls that were cut leave behind, and a second in any case.
        """
        log.info("ending; calls have %g seconds to finish", grace)
        await self._endpoint.retire()
        self._service.refuse()
        limit = max(2 * grace, _END)
        try:
            async with asyncio.timeout(limit):
                await self._endpoint.close(grace)
                await self._service.drain()
        except TimeoutError as error:
            raise CutShortError(
                f"not everything was done {limit:g} seconds after the server was told to end; "
                "jobs stand at their last commit"
            ) from error
        finally:
            self._observation.close()
            self._let_go()

    async def abandon(self) -> None:
        """Say NOT_SERVING and cut all calls: the engine will answer none of them."""
        await self._endpoint.retire()
        self._service.refuse()
        await self._endpoint.close(_WATCHERS_HEAR)
        self._observation.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._ownership is not None:
            self._ownership.release()


async def serve(
    config: ServerConfig,
    stop: asyncio.Event,
    started: Callable[[Server], None] = lambda _: None,
    replica: Replica = NO_REPLICA,
) -> None:
    """Load, serve, and drain once `stop` is set.

    Args:
        config: What to serve, and how.
        stop: Set to end the server.
        started: Called with the server once it serves.
        replica: Where the data directory is shared with other machines.

    Raises:
        StartupError: an option is not usable.
        EngineLostError: the engine hangs; the process is to end, and not by joining threads.
        CutShortError: the server did not end in time; likewise.
    """
    keep_freed_memory()
    thread = engine_thread()
    # Before a model is loaded, which may take minutes.
    ownership = Ownership.take(config.data_dir) if replica is NO_REPLICA else None
    try:
        loading = asyncio.get_running_loop().run_in_executor(
            thread, load_engine, config.model, config.limits.document_tokens
        )
        engine, loaded = await loading
    except BaseException:
        if ownership is not None:
            ownership.release()
        raise
    server = await Server.start(config, engine, loaded, thread, replica, ownership=ownership)
    started(server)
    # One line on standard output, for people and for programs that started us.
    print(f"actvec-server ready on {config.address(server.port)}", flush=True)
    stopping = asyncio.create_task(stop.wait())
    losing = asyncio.create_task(server.lost(config.step_timeout))
    await asyncio.wait({stopping, losing}, return_when=asyncio.FIRST_COMPLETED)
    if not losing.done():
        losing.cancel()
        await server.stop(config.grace)
        return
    stopping.cancel()
    await server.abandon()
    raise await losing
