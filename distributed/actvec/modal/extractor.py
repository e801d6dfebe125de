"""The workers: the extractor's class, and a server at a fixed address.

This is a thin layer: `shards.host`, `worker` and `sharding` compute, and know nothing of Modal.
"""

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import modal
import modal.experimental
from actvec.modal.resources import (
    APP,
    DATA,
    DEVICE,
    FRONT,
    GPU_SNAPSHOT,
    HOUR,
    IDLE,
    LOCAL,
    MODEL,
    ON_A_GPU,
    DeployedWorkers,
    app,
    data,
    deployment,
)
from actvec.server.errors import CutShortError, EngineLostError, InputError

if TYPE_CHECKING:
    from actvec.modal.volume import Site
    from actvec.modal.worker import Worker
    from actvec.server.config import ServerConfig

log = logging.getLogger(__name__)

_PORT = 50051


def site() -> "Site":
    """The files of a container."""
    from actvec.modal.volume import Site  # noqa: PLC0415 - in the container only

    return Site(LOCAL, DATA, data)


def _make_worker() -> "Worker":
    from actvec.modal.worker import make_worker  # noqa: PLC0415 - torch: not at home

    return make_worker(MODEL, site(), DEVICE)


def _server_config(**address: Any) -> "ServerConfig":
    from actvec.modal.worker import server_config  # noqa: PLC0415 - torch: not at home

    return server_config(MODEL, LOCAL, device=DEVICE, **address)


def log_to_modal() -> None:
    """Log to standard error, which Modal keeps."""
    from actvec.server.telemetry.log import configure_logging  # noqa: PLC0415 - gRPC: as in `serve`

    configure_logging("text")


def _end_process(error: Exception) -> NoReturn:
    """End the process: nothing in it repairs an engine, so the next input would fail too."""
    log.critical("%s; the container ends, and Modal starts another", error)
    os._exit(os.EX_SOFTWARE)


@contextmanager
def _built_in_errors() -> Iterator[None]:
    """Raise errors as Python's own classes: a caller may have only `modal` installed.

    Raises:
        ValueError: an argument is unusable.
        RuntimeError: any other error, of ours, torch's or the model's.
    """
    try:
        yield
    except InputError as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


@app.cls(
    **ON_A_GPU,
    # Modal's maximum, also for a call of `serve`.
    timeout=24 * HOUR,
    scaledown_window=60,
    enable_memory_snapshot=True,
    experimental_options={"enable_gpu_snapshot": True} if GPU_SNAPSHOT else None,
)
class Pythia12BActivationExtractor:
    """Vectors of single texts for programs that call Modal themselves, and a server.

    Without `@modal.concurrent`, a container has one input at a time, so one that serves does
    nothing else.
    """

    @modal.enter(snap=True)
    def load(self) -> None:
        """Load and warm the model; Modal takes the snapshot after this."""
        self._worker: Worker | None = None
        self._failure: Exception | None = None
        # A snapshot without the GPU's memory is taken on a machine without a GPU, so the model
        # loads after it.
        if GPU_SNAPSHOT:
            self._try_to_load()
        else:
            # `restore` meets an error again, and keeps it for the methods.
            with suppress(Exception):
                import actvec.modal.worker  # noqa: F401, PLC0415 - torch: part of every snapshot

    @modal.enter(snap=False)
    def restore(self) -> None:
        """Load what could not be part of the snapshot."""
        # Otherwise all containers of a snapshot would draw the same numbers.
        random.seed()
        log_to_modal()
        if self._worker is None:
            self._try_to_load()

    def _try_to_load(self) -> None:
        # Modal restarts a container whose `enter` fails forever, and its input stays pending.
        try:
            self._worker, self._failure = _make_worker(), None
        except Exception as error:
            log.exception("the model cannot be loaded")
            self._failure = error

    @contextmanager
    def _at_work(self) -> Iterator["Worker"]:
        """Provide the worker for one input, with errors that any caller can read.

        Raises:
            RuntimeError: the model could not be loaded; the container takes no further input.
            ValueError: an argument is unusable.
        """
        if self._failure is not None:
            # The next container may find weights that a `download` has stored since. If Modal does
            # not answer, this one fails the next input too; the caller gets the reason anyway.
            with suppress(Exception):
                modal.experimental.stop_fetching_inputs()
        with self._loaded() as worker:
            yield worker

    @contextmanager
    def _loaded(self) -> Iterator["Worker"]:
        """Provide the worker, as `_at_work` does; the container keeps taking inputs."""
        with _built_in_errors():
            if self._worker is None:
                raise RuntimeError(f"this worker cannot start: {self._failure}")
            yield self._worker

    @modal.method()
    def get_activation_vector(self, /, text: str, **options: Any) -> dict[str, Any]:
        """See `worker.Worker.get_activation_vector`."""
        with self._at_work() as worker:
            return worker.get_activation_vector(text, **options)

    @modal.method()
    def get_activation_matrix(self, /, text: str, **options: Any) -> dict[str, Any]:
        """See `worker.Worker.get_activation_matrix`."""
        with self._at_work() as worker:
            return worker.get_activation_matrix(text, **options)

    @modal.method()
    def get_model_info(self) -> dict[str, Any]:
        """See `worker.Worker.get_model_info`."""
        with self._at_work() as worker:
            return worker.get_model_info()

    @modal.method()
    async def serve(
        self,
        idle_seconds: float = IDLE,
        *,
        start_id: str = "",
        deployed: str = "",
        deployed_as: str = APP,
    ) -> None:
        """Serve behind a tunnel, found by clients, until `idle_seconds` pass without a call.

        The process ends if the engine hangs, or if not everything accepted was done in time.

        Args:
            idle_seconds: See above.
            start_id: The client's id of this start; if that client no longer waits, return at once.
            deployed: The deployment in which the client looks; empty for this one.
            deployed_as: The app's name, as the client knows it.

        Raises:
            RuntimeError: the model could not be loaded, the secret has no token, or this container
                is of another deployment.
        """
        if self._failure is not None:
            with suppress(Exception):
                await modal.experimental.stop_fetching_inputs.aio()
        with self._loaded() as worker:
            if deployed not in ("", deployment()):
                raise RuntimeError(
                    "the app is being deployed anew; try again once that is done. After a rollback,"
                    " deploy the older version instead"
                )
            # Not before: no object of gRPC may exist at a snapshot.
            from actvec.modal import tunnel_server  # noqa: PLC0415

            where = tunnel_server.Whereabouts(
                # Modal adds TLS; grpcio requires h2 in the ALPN negotiation.
                open_tunnel=lambda port: modal.forward(port, h2_enabled=True),
                directory=DeployedWorkers(deployed_as),
                task_id=os.environ["MODAL_TASK_ID"],
                start_id=start_id,
            )
            try:
                await tunnel_server.serve_until_unused(
                    worker,
                    # Nothing documents whether a tunnel would reach a loopback address.
                    _server_config(host="0.0.0.0"),  # noqa: S104
                    where,
                    tunnel_server.Tenure(idle_seconds=idle_seconds),
                )
            except (EngineLostError, CutShortError) as error:
                _end_process(error)

    @modal.method()
    def find_corpus_mean(self, center: str) -> str:
        """See `worker.Worker.find_corpus_mean`."""
        with self._at_work() as worker:
            return worker.find_corpus_mean(center)

    @modal.method()
    def compute_shard(
        self, shard: str, kind: str, corpus: str, name: str, options: dict[str, Any]
    ) -> dict[str, Any]:
        """See `sharding.ShardRunner`; `kind` is `mean` or `vectors`.

        The process ends if the engine is lost.
        """
        from actvec.modal.sharding import ShardRunner  # noqa: PLC0415 - gRPC: as in `serve`

        with self._at_work() as worker:
            runner = ShardRunner(worker, site())
            compute = {"mean": runner.mean, "vectors": runner.vectors}[kind]
            try:
                return compute(corpus, name, shard, options)
            except EngineLostError as error:
                _end_process(error)


def extractor() -> Any:
    """The class as Modal makes it, invisible to type checkers."""
    return Pythia12BActivationExtractor()


def _second_front(server: type) -> Any:
    """Add the server to the app, if the deployment asks for it."""
    if not FRONT:
        return server
    return app.server(
        **ON_A_GPU,
        port=_PORT,
        h2_enabled=True,
        # Modal's proxy requires a key before it starts a container; after that, our token guards.
        unauthenticated=False,
        scaledown_window=int(min(max(IDLE, 2), 3600)),
        exit_grace_period=25,
    )(server)


@_second_front
class ActivationVectorServer:
    """The same server at a fixed address, scaled by Modal; it requires the same token."""

    @modal.enter()
    def start(self) -> None:
        """Serve on the port that Modal's proxy calls."""
        from actvec.modal.background import BackgroundServer  # noqa: PLC0415 - as in `serve`

        log_to_modal()
        # Modal's proxy cannot reach a loopback address.
        config = _server_config(host="0.0.0.0", port=_PORT)  # noqa: S104
        self._server = BackgroundServer(config, _end_process, site().replica())
        self._server.start()

    @modal.exit()
    def stop(self) -> None:
        """Drain."""
        self._server.stop()
