"""The app on Modal: the extractor's class, and functions that fill its volumes.

    modal deploy -m actvec.server.modal_app
    modal run -m actvec.server.modal_app::download
    modal run -m actvec.server.modal_app --text "Your text here"
    modal run --detach -m actvec.server.modal_app::corpus_mean --corpus c4.jsonl.gz --shards 8

Thin: what is computed is in `worker`, which knows nothing of Modal; what a deployment may choose is
in `modal_resources`.
"""

import logging
import os
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import modal

from actvec.server.errors import CutShortError, EngineLostError
from actvec.server.modal_resources import (
    APP,
    COORDINATING,
    DATA,
    DEVICE,
    GPU,
    GPU_SNAPSHOT,
    HOUR,
    IDLE,
    LOCAL,
    MODEL,
    ON_A_GPU,
    WEIGHTS,
    data,
    hub_secrets,
    image,
    weights,
    workers,
)

app = modal.App(APP, include_source=False)
log = logging.getLogger(__name__)

_PORT = 50051


class _WorkerDirectory:
    """`workers`, as `announcement` writes to it."""

    async def put(self, key: str, value: bytes) -> None:
        await workers.put.aio(key, value)

    async def pop(self, key: str) -> None:
        await workers.pop.aio(key, None)


def _site() -> Any:
    from actvec.server.site import Site  # noqa: PLC0415 - in the container only

    return Site(LOCAL, DATA, data)


def _make_worker() -> Any:
    from actvec.server.modal_container import make_worker  # noqa: PLC0415 - torch: not at home

    return make_worker(MODEL, _site(), DEVICE)


def _server_config(**address: Any) -> Any:
    from actvec.server.modal_container import server_config  # noqa: PLC0415 - torch: not at home

    return server_config(MODEL, LOCAL, device=DEVICE, **address)


def _log_to_modal() -> None:
    """Log to standard error, which Modal keeps."""
    from actvec.server.observe.log import configure_logging  # noqa: PLC0415 - gRPC: as in `serve`

    configure_logging("text")


def _end_process(error: Exception) -> NoReturn:
    """Nothing in this process heals an engine or stops it: the next input would find it so."""
    log.critical("%s; the container ends, and Modal starts another", error)
    os._exit(os.EX_SOFTWARE)


@app.cls(
    **ON_A_GPU,
    # The longest that Modal takes; of a call of `serve` too.
    timeout=24 * HOUR,
    scaledown_window=60,
    enable_memory_snapshot=True,
    experimental_options={"enable_gpu_snapshot": True} if GPU_SNAPSHOT else None,
)
class Pythia12BActivationExtractor:
    """Vectors of single texts for programs that call Modal themselves, and a server.

    Without `@modal.concurrent`: a container has one input at a time, so that whoever serves does
    nothing else.
    """

    @modal.enter(snap=True)
    def load(self) -> None:
        """Load and warm the model; the snapshot is taken after this."""
        import actvec.server.worker  # noqa: F401, PLC0415 - torch too: part of every snapshot

        # A snapshot without the GPU's memory is taken where there is no GPU, and loads after it.
        self._worker = _make_worker() if GPU_SNAPSHOT else None

    @modal.enter(snap=False)
    def restore(self) -> None:
        """Load what could not be part of the snapshot."""
        # All containers of a snapshot would draw the same numbers.
        random.seed()
        _log_to_modal()
        if self._worker is None:
            self._worker = _make_worker()

    @modal.method()
    def get_activation_vector(self, /, text: str, **options: Any) -> dict[str, Any]:
        """See `worker.Worker.get_activation_vector`."""
        assert self._worker is not None  # noqa: S101 - `restore` ran
        made: dict[str, Any] = self._worker.get_activation_vector(text, **options)
        return made

    @modal.method()
    def get_activation_matrix(self, /, text: str, **options: Any) -> dict[str, Any]:
        """See `worker.Worker.get_activation_matrix`."""
        assert self._worker is not None  # noqa: S101 - `restore` ran
        made: dict[str, Any] = self._worker.get_activation_matrix(text, **options)
        return made

    @modal.method()
    def get_model_info(self) -> dict[str, Any]:
        """See `worker.Worker.get_model_info`."""
        assert self._worker is not None  # noqa: S101 - `restore` ran
        info: dict[str, Any] = self._worker.get_model_info()
        return info

    @modal.method()
    async def serve(self, idle_seconds: float = IDLE) -> None:
        """Serve behind a tunnel, found in `workers`, until nobody has called for `idle_seconds`.

        The process ends where the engine hangs, or not everything that was taken was done in time.

        Raises:
            StartupError: the secret has no token.
        """
        # Not before: at a snapshot no object of gRPC may exist.
        from actvec.server.tenure import (  # noqa: PLC0415
            Tenure,
            Whereabouts,
            serve_until_unused,
        )

        where = Whereabouts(
            # TLS by Modal; grpcio demands that h2 is agreed on by ALPN.
            open_tunnel=lambda port: modal.forward(port, h2_enabled=True),
            directory=_WorkerDirectory(),
            task_id=os.environ["MODAL_TASK_ID"],
        )
        assert self._worker is not None  # noqa: S101 - `restore` ran
        try:
            await serve_until_unused(
                self._worker,
                # Whether a tunnel would reach a loopback address, nothing says.
                _server_config(host="0.0.0.0"),  # noqa: S104
                where,
                Tenure(idle_seconds=idle_seconds),
            )
        except (EngineLostError, CutShortError) as error:
            _end_process(error)

    @modal.method()
    async def compute_shard(
        self, shard: str, kind: str, corpus: str, name: str, options: dict[str, Any]
    ) -> dict[str, Any]:
        """See `fanout.ShardRunner`; `kind` is `mean` or `vectors`. It ends as `serve` does."""
        from actvec.server.fanout import ShardRunner  # noqa: PLC0415 - gRPC: as in `serve`

        assert self._worker is not None  # noqa: S101 - `restore` ran
        runner = ShardRunner(self._worker, _server_config(), _site())
        compute = {"mean": runner.mean, "vectors": runner.vectors}[kind]
        try:
            return await compute(corpus, name, shard, options)
        except (EngineLostError, CutShortError) as error:
            _end_process(error)


@app.server(
    **ON_A_GPU,
    port=_PORT,
    h2_enabled=True,
    # Modal's proxy would want headers of its own; our token guards.
    unauthenticated=True,
    scaledown_window=int(min(max(IDLE, 2), 3600)),
    exit_grace_period=25,
)
class ActivationVectorServer:
    """The same server at an address that stays, scaled by Modal; it wants the same token."""

    @modal.enter()
    def start(self) -> None:
        """Serve on the port that Modal's proxy asks."""
        from actvec.server.background import BackgroundServer  # noqa: PLC0415 - as in `serve`

        _log_to_modal()
        # Modal's proxy reaches no loopback address.
        config = _server_config(host="0.0.0.0", port=_PORT)  # noqa: S104
        self._server = BackgroundServer(config, _end_process, _site().replica())
        self._server.start()

    @modal.exit()
    def stop(self) -> None:
        """Drain."""
        self._server.stop()


@app.function(image=image, volumes={str(WEIGHTS): weights}, secrets=hub_secrets(), timeout=4 * HOUR)
def download(model: str = MODEL) -> None:
    """Fill the volume of weights, which workers only read.

    Raises:
        StartupError: the model cannot be had from the hub.
    """
    from actvec.server.hub import hub_snapshot  # noqa: PLC0415 - in the container only

    snapshot = hub_snapshot(model)
    weights.commit()
    print(f"{model} is on the volume at commit {snapshot.commit}")


@app.function(image=image, volumes={str(DATA): data}, timeout=4 * HOUR)
def fetch_corpus(
    save_as: str,
    *,
    dataset: str = "allenai/c4",
    config: str = "en",
    min_words: int = 700,
    max_words: int = 1500,
    num_samples: int = 10_000,
    seed: int = 0,
) -> None:
    """Fetch a corpus, by `actvec corpus fetch`, into the volume of data: `corpora/<save_as>`.

    Raises:
        ValueError: `save_as` is no plain file name.
    """
    if Path(save_as).name != save_as:
        raise ValueError(f"--save-as names a file in corpora/, without a folder: not {save_as!r}")
    from actvec.server.programs import actvec_command  # noqa: PLC0415 - in the container only

    command = actvec_command(
        *("corpus", "fetch"),
        save_local=DATA / "corpora" / save_as,
        dataset=dataset,
        config=config,
        min_words=min_words,
        max_words=max_words,
        num_samples=num_samples,
        seed=seed,
    )
    subprocess.run(command, check=True)  # noqa: S603 - our own program, without a shell
    data.commit()


@app.function(**COORDINATING)
def corpus_mean(
    corpus: str,
    *,
    shards: int = 4,
    name: str = "",
    truncation: str = "error",
    variance: bool = False,
    tokens_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> None:
    """The mean of `corpora/<corpus>` of the volume, computed by as many workers as shards.

    Time and cost are reckoned and shown first. Run again, it goes on where it was cut short.
    """
    coordinator = _coordinator(tokens_per_second, price_per_hour)
    coordinator.mean(
        corpus, name or _stem(corpus), shards, {"truncation": truncation, "variance": variance}
    )


@app.function(**COORDINATING)
def vectors(
    corpus: str,
    *,
    mode: str = "short",
    shards: int = 4,
    name: str = "",
    center: str = "",
    truncation: str = "error",
    file_format: str = "shards",
    tokens_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> None:
    """The vectors of `corpora/<corpus>` of the volume, in `vectors/<name>` there.

    Time and cost are reckoned and shown first. Run again, only missing shards are computed.
    """
    coordinator = _coordinator(tokens_per_second, price_per_hour)
    options = {"mode": mode, "truncation": truncation, "format": file_format}
    coordinator.vectors(corpus, name or f"{_stem(corpus)}-{mode}", shards, options, center)


def _coordinator(tokens_per_second: float | None, price_per_hour: float | None) -> Any:
    from actvec.server.coordinator import (  # noqa: PLC0415 - in the container only
        Coordinator,
        Figures,
    )

    def compute(shards: Sequence[str], arguments: Mapping[str, Any]) -> Any:
        return _extractor().compute_shard.map(shards, kwargs=arguments, return_exceptions=True)

    def mean_id(name: str) -> str:
        made = _extractor().get_activation_vector.remote("a", center=name)
        return str(made["stamp"]["corpus_mean_id"])

    _log_to_modal()
    figures = Figures(MODEL, GPU, tokens_per_second, price_per_hour)
    return Coordinator(_site(), compute, mean_id, figures)


def _extractor() -> Any:
    """The class as Modal makes it, which type checkers do not see."""
    return Pythia12BActivationExtractor()


def _stem(corpus: str) -> str:
    return Path(corpus).name.partition(".")[0]


@app.local_entrypoint()
def main(text: str, pooling_strategy: str = "short", center: str = "", out: str = ".") -> None:
    """Print the vector of a text, and save it as safetensors."""
    import hashlib  # noqa: PLC0415 - here alone

    from safetensors.numpy import save_file  # noqa: PLC0415

    made = _extractor().get_activation_vector.remote(
        text, pooling_strategy=pooling_strategy, center=center or None
    )
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = Path(out) / f"activation_vector_{pooling_strategy}_{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"vec": made["vector"]}, str(path))
    print(made["vector"])
    print(f"{path}: {made['shape']} of layers {made['layers_used']}, {made['tokens']} tokens")
