"""The server's life: a model, a port, health, reflection, and an orderly end."""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from actvec.server.access.access import Access
from actvec.server.budget import Budget
from actvec.server.config import ServerConfig
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.watchdog import last_engine_lost
from actvec.server.errors import CutShortError, EngineLostError, StartupError
from actvec.server.extraction.extractor import Extractor
from actvec.server.heap import Tidying, keep_freed_memory
from actvec.server.jobs.registry import Jobs
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.store import MeanStore
from actvec.server.model.loading import LoadedModel
from actvec.server.model.text.tokenizer import Tokenizer
from actvec.server.program.engines import DrivenEngine, common_step_budget, load_engines
from actvec.server.program.ownership import owned
from actvec.server.rpc.endpoint import Endpoint
from actvec.server.rpc.interceptor import CallInterceptor
from actvec.server.service.answers import AnswerCounter
from actvec.server.service.service import ActivationVectorService
from actvec.server.telemetry.observation import Observation
from actvec.v1 import service_pb2

log = logging.getLogger(__name__)

# Seconds in which watchers of health learn that the server ends.
_WATCHERS_HEAR = 1.0

# Seconds that an end may always take: even one without grace takes a moment.
_END = 1.0

# How long a thread that computes in Python makes others wait. A small call switches threads some
# ten times: with Python's 5 ms, another caller's large message would cost it ten times that.
_SWITCH_SECONDS = 0.0005

SERVICE = service_pb2.DESCRIPTOR.services_by_name["ActivationVectorService"]


class Server:
    """A running server. `Server.start` makes one, `stop` ends it.

    Attributes:
        port: The port of the service.
        metrics_port: The port for Prometheus; None without metrics.
    """

    def __init__(
        self,
        access: Access,
        observation: Observation,
        endpoint: Endpoint,
        service: ActivationVectorService,
        extractor: Extractor,
        *,
        tidying: asyncio.Task[None],
    ) -> None:
        self.port = endpoint.port
        self.metrics_port = observation.metrics_port
        self._access = access
        self._observation = observation
        self._endpoint = endpoint
        self._service = service
        self._extractor = extractor
        self._tidying = tidying

    @classmethod
    async def start(
        cls,
        config: ServerConfig,
        engines: Sequence[DrivenEngine],
        loaded: LoadedModel,
        replica: Replica = NO_REPLICA,
    ) -> "Server":
        """Listen and serve; health is SERVING when this returns.

        Args:
            config: The server's configuration.
            engines: One engine, or several with a copy of the model each.
            loaded: The model.
            replica: Where to share the data directory with other machines; by default it belongs to
                this server alone, see `owned`.

        Raises:
            StartupError: the server cannot listen on an address, read a file of the options, or fit
                a step in memory; BOS is an id that the model does not have; or the data directory
                cannot be used.
        """
        access = Access.of(config)
        limits = config.limits
        engine, card = engines[0].engine, engines[0].engine.card
        context = min(card.context, limits.document_tokens or card.context)
        tokenizer = Tokenizer(
            loaded.tokenizer, context, bos=loaded.bos, vocabulary=loaded.vocabulary
        )
        step_tokens = await common_step_budget(engines, limits.step_tokens, context)
        observation = Observation(config.watch, step_tokens, SERVICE.full_name)
        runners = [StepRunner(driven.engine, observation.stepped) for driven in engines]
        extractor = Extractor(runners, tokenizer, limits, step_tokens)
        try:
            store = MeanStore(config.data_dir / "means", config.limits.store_bytes, replica)
            if replica is NO_REPLICA:
                store.sweep()
        except OSError as error:
            raise StartupError(f"cannot use --data-dir {config.data_dir}: {error}") from error
        jobs = Jobs(config.data_dir / "jobs", extractor, limits.lease_seconds, replica)
        service = ActivationVectorService(engine, extractor, store, jobs)
        budget = Budget(limits)
        interceptors = [
            CallInterceptor(access.tokens, limits, observation.listeners, AnswerCounter, budget),
            *observation.interceptors,
        ]
        endpoint = Endpoint(config, access, service, SERVICE, interceptors)
        observation.start(engine, extractor)
        await endpoint.open()
        # Last: an earlier failure then leaves no thread that keeps the program alive.
        extractor.start([driven.thread for driven in engines])
        log.info(
            "%s, revision %s, layers %s, on %s in %s; steps of %d tokens; means in %s",
            *(card.model, card.revision, ",".join(map(str, card.layers))),
            *(", ".join(extractor.devices), card.dtype, step_tokens, config.data_dir),
        )
        tidying = asyncio.create_task(Tidying(lambda: budget.held).run())
        return cls(access, observation, endpoint, service, extractor, tidying=tidying)

    @property
    def all_well(self) -> bool:
        """Whether no engine was lost."""
        return not self._extractor.engines_lost

    def reload(self) -> None:
        """Read tokens and certificates again; log what is unusable, and keep the old."""
        self._access.reload()

    def idle_for(self) -> float:
        """Seconds since the last call of the service ended, or since the start; 0 in a call."""
        return self._observation.usage.idle_for()

    async def lost(self, step_timeout: float) -> EngineLostError:
        """Return when the last engine hangs, or its device is lost.

        An engine lost before is taken out, and the others compute its documents.
        """
        extractor = self._extractor
        return await last_engine_lost(extractor.runners, step_timeout, extractor.take_out)

    async def stop(self, grace: float) -> None:
        """Drain: report NOT_SERVING, finish accepted work within `grace` seconds, end the engines.

        The engines go last: calls in flight need them.

        Raises:
            CutShortError: accepted work was not done in time. Beside `grace` for calls, there is as
                much again for the remains of cancelled calls, and always one second.
        """
        log.info("shutting down; calls have %g seconds to finish", grace)
        await self._endpoint.retire()
        self._service.refuse()
        limit = max(2 * grace, _END)
        try:
            async with asyncio.timeout(limit):
                await self._endpoint.close(grace)
                await self._service.drain()
        except TimeoutError as error:
            raise CutShortError(
                f"the shutdown was not complete after {limit:g} seconds; jobs are at "
                "their last commit"
            ) from error
        finally:
            self._let_go()

    async def abandon(self) -> None:
        """Report NOT_SERVING and cancel all calls: no engine will answer any."""
        await self._endpoint.retire()
        self._service.refuse()
        await self._endpoint.close(_WATCHERS_HEAR)
        self._let_go()

    def _let_go(self) -> None:
        self._observation.close()
        self._tidying.cancel()


async def serve(
    config: ServerConfig,
    stop: asyncio.Event,
    started: Callable[[Server], None] = lambda _: None,
    replica: Replica = NO_REPLICA,
) -> bool:
    """Load, serve, and drain once `stop` is set.

    Args:
        config: The server's configuration.
        stop: Set to end the server.
        started: Called with the server once it serves.
        replica: Where to share the data directory with other machines.

    Returns:
        Whether all threads have ended. That of a lost engine may hang; the process must then end
        without joining threads.

    Raises:
        StartupError: an option is unusable.
        EngineLostError: the last engine is lost; the process must end, without joining threads.
        CutShortError: the server did not end in time; the process must end in the same way.
    """
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Before a model is loaded, which may take minutes.
    with owned(config.data_dir) if replica is NO_REPLICA else nullcontext():
        engines, loaded = await load_engines(config)
        server = await Server.start(config, engines, loaded, replica)
        started(server)
        # One line on standard output, for people and for programs that started us.
        print(f"actvec-server ready on {config.address(server.port)}", flush=True)
        stopping = asyncio.create_task(stop.wait())
        losing = asyncio.create_task(server.lost(config.step_timeout))
        await asyncio.wait({stopping, losing}, return_when=asyncio.FIRST_COMPLETED)
        if not losing.done():
            losing.cancel()
            await server.stop(config.grace)
            return server.all_well
        stopping.cancel()
        await server.abandon()
        raise await losing
