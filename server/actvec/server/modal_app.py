"""The app on Modal: the extractor's class, and functions that fill its volumes.

    modal deploy -m actvec.server.modal_app
    modal run -m actvec.server.modal_app::download
    modal run -m actvec.server.modal_app --text "Your text here"

Thin: what is computed is in `worker`, which knows nothing of Modal. What a deployment may choose is
read from the environment of the machine that deploys, and once more in the container, where it is
part of the image.
"""

import logging
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import modal

from actvec.server.modal_image import make_image

# Apps of other names can stand beside each other, for example one for each model.
APP = os.environ.get("ACTVEC_MODAL_APP", "actvec")
MODEL = os.environ.get("ACTVEC_MODAL_MODEL", "EleutherAI/pythia-12b")
# An L4 or A10G (24 GB) holds the truncated Pythia-12B too: 18.1 GB of weights.
GPU = os.environ.get("ACTVEC_MODAL_GPU", "A100-80GB")
# Modal's snapshot of a GPU's memory is alpha: off until somebody asks for it.
GPU_SNAPSHOT = os.environ.get("ACTVEC_MODAL_GPU_SNAPSHOT", "") == "1"
# Seconds without a call after which a worker ends.
IDLE = float(os.environ.get("ACTVEC_MODAL_IDLE", "300"))

WEIGHTS, DATA = Path("/weights"), Path("/data")
# Where a container writes, before it moves what is whole to the volume.
_LOCAL = Path("/var/tmp/actvec")  # noqa: S108 - the container is ours alone
_HOUR = 3600
_PORT = 50051

log = logging.getLogger(__name__)

app = modal.App(APP, include_source=False)
image = make_image(
    {
        "ACTVEC_MODAL_APP": APP,
        "ACTVEC_MODAL_MODEL": MODEL,
        "ACTVEC_MODAL_GPU": GPU,
        "ACTVEC_MODAL_GPU_SNAPSHOT": "1" if GPU_SNAPSHOT else "",
        "ACTVEC_MODAL_IDLE": str(IDLE),
        "HF_HOME": str(WEIGHTS),
    }
)
weights = modal.Volume.from_name("actvec-weights", create_if_missing=True, version=2)
data = modal.Volume.from_name("actvec-data", create_if_missing=True, version=2)
token = modal.Secret.from_name("actvec-token", required_keys=["ACTVEC_TOKEN"])
workers = modal.Dict.from_name(f"{APP}-workers", create_if_missing=True)

_ON_A_GPU: dict[str, Any] = {
    "image": image,
    "gpu": GPU,
    "memory": 65536,
    "volumes": {str(WEIGHTS): weights.with_mount_options(read_only=True), str(DATA): data},
    "secrets": [token],
    # Of a first start, which may load the weights from the hub.
    "startup_timeout": _HOUR,
}


class _WorkerDirectory:
    """`workers`, as `announcement` writes to it."""

    async def put(self, key: str, value: bytes) -> None:
        await workers.put.aio(key, value)

    async def pop(self, key: str) -> None:
        await workers.pop.aio(key, None)


def _make_worker() -> Any:
    from actvec.server.config import ModelOptions  # noqa: PLC0415 - in the container only
    from actvec.server.worker import Worker  # noqa: PLC0415

    return Worker(ModelOptions(model=MODEL), _LOCAL, _replica())


def _replica() -> Any:
    from actvec.server.means.replica import VolumeReplica  # noqa: PLC0415 - in the container only

    return VolumeReplica(_LOCAL, DATA, data)


def _server_config(host: str = "127.0.0.1", port: int = 0) -> Any:
    """How a container serves. Secrets are read here, not when a snapshot is taken."""
    from actvec.server.config import (  # noqa: PLC0415 - in the container only
        AccessOptions,
        Limits,
        ModelOptions,
        ServerConfig,
    )

    return ServerConfig(
        model=ModelOptions(model=MODEL),
        # A commit moves a checkpoint to the volume.
        limits=Limits(commit_seconds=30.0),
        access=AccessOptions(token=os.environ.get("ACTVEC_TOKEN")),
        host=host,
        port=port,
        data_dir=_LOCAL,
        # Modal kills a container 30 seconds after it was told to end.
        grace=10.0,
    )


def _end_process(error: Exception) -> None:
    """Nothing in this process can heal a lost engine: the next input would find the same."""
    log.critical("%s; the container ends, and Modal starts another", error)
    os._exit(os.EX_SOFTWARE)


@app.cls(
    **_ON_A_GPU,
    # The longest that Modal takes; of a call of `serve` too.
    timeout=24 * _HOUR,
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

        Raises:
            StartupError: the secret has no token.
            CutShortError: not everything that was taken was done in time.
        """
        # Not before: at a snapshot no object of gRPC may exist.
        from actvec.server.errors import EngineLostError  # noqa: PLC0415
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
                self._worker, _server_config(), where, Tenure(idle_seconds=idle_seconds)
            )
        except EngineLostError as error:
            _end_process(error)


@app.server(
    **_ON_A_GPU,
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

        # Modal's proxy reaches no loopback address.
        config = _server_config("0.0.0.0", _PORT)  # noqa: S104
        self._server = BackgroundServer(config, _end_process, _replica())
        self._server.start()

    @modal.exit()
    def stop(self) -> None:
        """Drain."""
        self._server.stop()


@app.function(image=image, volumes={str(WEIGHTS): weights}, timeout=4 * _HOUR)
def download(model: str = MODEL) -> None:
    """Fill the volume of weights, which workers only read."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - in the container only

    snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.bin", "*.txt"])
    weights.commit()


@app.function(image=image, volumes={str(DATA): data}, timeout=4 * _HOUR)
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
    subprocess.run(  # noqa: S603 - our own program, without a shell
        fetch_command(
            save_as,
            dataset=dataset,
            config=config,
            min_words=min_words,
            max_words=max_words,
            num_samples=num_samples,
            seed=seed,
        ),
        check=True,
    )
    data.commit()


def fetch_command(save_as: str, **options: object) -> list[str]:
    """The program that fetches, in a process of its own: the server does not know the client.

    Raises:
        ValueError: `save_as` is no plain file name.
    """
    if Path(save_as).name != save_as:
        raise ValueError(f"--save-as names a file in corpora/, without a folder: not {save_as!r}")
    command = [sys.executable, "-c", "from actvec.client.cli import main; main()"]
    command += ["corpus", "fetch", "--save-local", str(DATA / "corpora" / save_as)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return command


@app.local_entrypoint()
def main(text: str, pooling_strategy: str = "short", center: str = "", out: str = ".") -> None:
    """Print the vector of a text, and save it as safetensors."""
    import hashlib  # noqa: PLC0415 - here alone

    from safetensors.numpy import save_file  # noqa: PLC0415

    extractor: Any = Pythia12BActivationExtractor()
    made = extractor.get_activation_vector.remote(
        text, pooling_strategy=pooling_strategy, center=center or None
    )
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = Path(out) / f"activation_vector_{pooling_strategy}_{name}.safetensors"
    save_file({"vec": made["vector"]}, str(path))
    print(f"{path}: {made['shape']} of layers {made['layers_used']}, {made['tokens']} tokens")
