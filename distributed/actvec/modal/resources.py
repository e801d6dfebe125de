"""The resources of the app on Modal (image, volumes, secret, directory) and its choices.

Choices come from the environment of the machine that deploys, and again in the container, whose
image has them.
"""

import os
import secrets
from collections.abc import Mapping
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import modal

# Apps of different names can coexist, for example one per model.
APP = os.environ.get("ACTVEC_MODAL_APP", "actvec")
MODEL = os.environ.get("ACTVEC_MODAL_MODEL", "EleutherAI/pythia-12b")
# An L4 or A10G (24 GB) also holds the truncated Pythia-12B: 18.1 GB of weights.
GPU = os.environ.get("ACTVEC_MODAL_GPU", "A100-80GB")
# Not `auto`: a container without its GPU must report that, and not compute on the CPU at its price.
DEVICE = "cuda:0"
# Modal's snapshot of a GPU's memory is alpha: off by default.
GPU_SNAPSHOT = os.environ.get("ACTVEC_MODAL_GPU_SNAPSHOT", "") == "1"
# Seconds without a call after which a worker ends.
IDLE = float(os.environ.get("ACTVEC_MODAL_IDLE", "300"))
# The most containers of each kind at a time: the limit on the cost of a mistake.
MAX_CONTAINERS = int(os.environ.get("ACTVEC_MODAL_MAX_CONTAINERS", "8"))
# Whether to add a server at a fixed address, beside the workers that clients find and start.
FRONT = os.environ.get("ACTVEC_MODAL_FRONT", "") == "1"
_DEPLOYMENT, _TAG = "ACTVEC_MODAL_DEPLOYMENT", "actvec-deployment"
_DRAWN = secrets.token_hex(8)

WEIGHTS, DATA = Path("/weights"), Path("/data")
# The local disk of a container, from which whole files move to the volume.
LOCAL = Path("/var/tmp/actvec")  # noqa: S108 - the container is ours alone
HOUR = 3600

# Exact versions of all that the image installs; `make lock` writes it.
REQUIREMENTS = files("actvec.modal") / "requirements.txt"

_METADATA = f"actvec-{version('actvec')}.dist-info"


def deployment() -> str:
    """Identify this deployment; every `modal deploy` makes a new one.

    Clients read it from the app's tags, and look only for workers of the present deployment. In a
    container it is a variable, read at each call: a restored snapshot may have seen another.
    """
    return os.environ.get(_DEPLOYMENT) or _DRAWN


def _make_image(environment: Mapping[str, str]) -> modal.Image:
    """Make the image of every function, with `environment` set in its containers."""
    image = modal.Image.debian_slim(python_version="3.11")
    # In the container, the image exists already, and the package's metadata does not.
    if modal.is_local():
        image = image.uv_pip_install(requirements=[str(REQUIREMENTS)]).env(dict(environment))
        # The metadata hold our version; the source alone does not.
        metadata = Path(str(distribution("actvec").locate_file("")), _METADATA)
        image = image.add_local_dir(metadata, f"/root/{_METADATA}")
    # Last, so that a changed line of our source does not reinstall everything. By default, Modal
    # sends only files named `.py`, and not prices or the demo model's tokenizer.
    return image.add_local_python_source("actvec", ignore=["**/*.pyc"])


image = _make_image(
    {
        "ACTVEC_MODAL_APP": APP,
        "ACTVEC_MODAL_MODEL": MODEL,
        "ACTVEC_MODAL_GPU": GPU,
        "ACTVEC_MODAL_GPU_SNAPSHOT": "1" if GPU_SNAPSHOT else "",
        "ACTVEC_MODAL_IDLE": str(IDLE),
        "ACTVEC_MODAL_MAX_CONTAINERS": str(MAX_CONTAINERS),
        "ACTVEC_MODAL_FRONT": "1" if FRONT else "",
        "HF_HOME": str(WEIGHTS),
    }
)
app = modal.App(APP, include_source=False, tags={_TAG: deployment()})
weights = modal.Volume.from_name("actvec-weights", create_if_missing=True, version=2)
data = modal.Volume.from_name("actvec-data", create_if_missing=True, version=2)
token = modal.Secret.from_name("actvec-token", required_keys=["ACTVEC_TOKEN"])


class DeployedWorkers:
    """The entries of this deployment in a `modal.Dict`, as `announcing` writes them.

    Args:
        deployed_as: The app's name, which `modal deploy --name` can change.
    """

    def __init__(self, deployed_as: str) -> None:
        self._workers = modal.Dict.from_name(f"{deployed_as}-workers", create_if_missing=True)
        self._deployment = deployment()
        self._prefix = f"{self._deployment}/"

    async def entries(self) -> Mapping[str, bytes]:
        """The entries of this deployment."""
        return {
            key.removeprefix(self._prefix): value
            async for key, value in self._workers.items.aio()
            if isinstance(key, str) and key.startswith(self._prefix)
        }

    async def put(self, key: str, value: bytes) -> None:
        """Write an entry, or replace it."""
        await self._workers.put.aio(self._prefix + key, value)

    async def pop(self, key: str) -> None:
        """Remove an entry, if it exists."""
        await self._workers.pop.aio(self._prefix + key, None)

    async def superseded(self) -> bool:
        """Whether the app was deployed again."""
        tags = await app.get_tags.aio()
        return tags.get(_TAG, self._deployment) != self._deployment


def hub_secrets() -> list[modal.Secret]:
    """The token in `HF_TOKEN` on this machine, for downloads of gated models."""
    name = "HF_TOKEN"
    return [modal.Secret.from_dict({name: os.environ[name]})] if os.environ.get(name) else []


ON_A_GPU: dict[str, Any] = {
    "image": image,
    "gpu": GPU,
    "memory": 65536,
    "max_containers": MAX_CONTAINERS,
    "volumes": {str(WEIGHTS): weights.with_mount_options(read_only=True), str(DATA): data},
    "secrets": [token],
    # Workers only read what `download` has stored. If asked, the hub might name a newer revision,
    # and its client would keep a connection open, which no snapshot survives.
    "env": {"HF_HUB_OFFLINE": "1", _DEPLOYMENT: deployment()},
    # The first start reads all weights from a volume that nobody has read yet.
    "startup_timeout": HOUR,
}

# Machines that wait for others get a day and no GPU.
COORDINATING: dict[str, Any] = {
    "image": image,
    "env": ON_A_GPU["env"],
    "volumes": ON_A_GPU["volumes"],
    "timeout": 24 * HOUR,
}
