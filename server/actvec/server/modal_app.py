"""The app on Modal: the extractor's class, and functions that fill its volumes.

    modal deploy -m actvec.server.modal_app
    modal run -m actvec.server.modal_app::download
    modal run -m actvec.server.modal_app --text "Your text here"

Thin: what is computed is in `worker`, which knows nothing of Modal. What a deployment may choose is
read from the environment of the machine that deploys, and once more in the container, where it is
part of the image.
"""

import os
import subprocess
import sys
from importlib.metadata import distribution, requires, version
from pathlib import Path
from typing import Any

import modal

MODEL = os.environ.get("ACTVEC_MODAL_MODEL", "EleutherAI/pythia-12b")
# An L4 or A10G (24 GB) holds the truncated Pythia-12B too: 18.1 GB of weights.
GPU = os.environ.get("ACTVEC_MODAL_GPU", "A100-80GB")
# Modal's snapshot of a GPU's memory is alpha: off until somebody asks for it.
GPU_SNAPSHOT = os.environ.get("ACTVEC_MODAL_GPU_SNAPSHOT", "") == "1"

WEIGHTS, DATA = Path("/weights"), Path("/data")
_HOUR = 3600
_METADATA = f"actvec-{version('actvec')}.dist-info"


def _requirements() -> list[str]:
    """What the server and corpora need, as `pyproject.toml` pins it."""
    wanted = ("extra == 'server'", "extra == 'data'", 'extra == "server"', 'extra == "data"')
    found = []
    for line in requires("actvec") or []:
        requirement, _, condition = line.partition(";")
        if not condition or condition.strip() in wanted:
            found.append(requirement.strip())
    return found


def _image() -> modal.Image:
    image = modal.Image.debian_slim(python_version="3.11")
    # In the container the image is there already, and the package's metadata is not.
    if modal.is_local():
        image = image.uv_pip_install(*_requirements()).env(
            {
                "ACTVEC_MODAL_MODEL": MODEL,
                "ACTVEC_MODAL_GPU": GPU,
                "ACTVEC_MODAL_GPU_SNAPSHOT": "1" if GPU_SNAPSHOT else "",
                "HF_HOME": str(WEIGHTS),
            }
        )
        # What says our version: source alone does not.
        metadata = Path(str(distribution("actvec").locate_file("")), _METADATA)
        image = image.add_local_dir(metadata, f"/root/{_METADATA}")
    # Last, so that a changed line of ours does not install everything again.
    return image.add_local_python_source("actvec")


app = modal.App("actvec", include_source=False)
image = _image()
weights = modal.Volume.from_name("actvec-weights", create_if_missing=True, version=2)
data = modal.Volume.from_name("actvec-data", create_if_missing=True, version=2)


def _make_worker() -> Any:
    from actvec.server.config import ModelOptions  # noqa: PLC0415 - in the container only
    from actvec.server.worker import Worker  # noqa: PLC0415

    return Worker(ModelOptions(model=MODEL), DATA)


@app.cls(
    image=image,
    gpu=GPU,
    memory=65536,
    volumes={str(WEIGHTS): weights.with_mount_options(read_only=True), str(DATA): data},
    timeout=_HOUR,
    startup_timeout=_HOUR,
    scaledown_window=300,
    enable_memory_snapshot=True,
    experimental_options={"enable_gpu_snapshot": True} if GPU_SNAPSHOT else None,
)
class Pythia12BActivationExtractor:
    """Vectors of single texts, for programs that call Modal themselves."""

    @modal.enter(snap=True)
    def load(self) -> None:
        """Load and warm the model; the snapshot is taken after this."""
        import actvec.server.worker  # noqa: F401, PLC0415 - torch too: part of every snapshot

        # A snapshot without the GPU's memory is taken where there is no GPU, and loads after it.
        self._worker = _make_worker() if GPU_SNAPSHOT else None

    @modal.enter(snap=False)
    def restore(self) -> None:
        """See what was stored since the snapshot, and load what could not be part of it."""
        data.reload()
        if self._worker is None:
            self._worker = _make_worker()

    @modal.method()
    def get_activation_vector(self, /, text: str, **options: Any) -> dict[str, Any]:
        """See `worker.Worker.get_activation_vector`."""
        if options.get("center"):
            data.reload()
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
