"""What the app on Modal is made of: image, volumes, secret and directory, and what one may choose.

Choices are read from the environment of the machine that deploys, and once more in the container,
where it is part of the image.
"""

import os
from collections.abc import Mapping
from importlib.metadata import distribution, requires, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import modal

# Apps of other names can stand beside each other, for example one for each model.
APP = os.environ.get("ACTVEC_MODAL_APP", "actvec")
MODEL = os.environ.get("ACTVEC_MODAL_MODEL", "EleutherAI/pythia-12b")
# An L4 or A10G (24 GB) holds the truncated Pythia-12B too: 18.1 GB of weights.
GPU = os.environ.get("ACTVEC_MODAL_GPU", "A100-80GB")
# Not `auto`: a container without its GPU is to say so, and not to compute on the CPU at its price.
DEVICE = "cuda:0"
# Modal's snapshot of a GPU's memory is alpha: off until somebody asks for it.
GPU_SNAPSHOT = os.environ.get("ACTVEC_MODAL_GPU_SNAPSHOT", "") == "1"
# Seconds without a call after which a worker ends.
IDLE = float(os.environ.get("ACTVEC_MODAL_IDLE", "300"))

WEIGHTS, DATA = Path("/weights"), Path("/data")
# Where a container writes, before it moves what is whole to the volume.
LOCAL = Path("/var/tmp/actvec")  # noqa: S108 - the container is ours alone
HOUR = 3600

_METADATA = f"actvec-{version('actvec')}.dist-info"


def requirements() -> list[str]:
    """What the server and corpora need, as `pyproject.toml` pins it."""
    wanted = ("extra == 'server'", "extra == 'data'", 'extra == "server"', 'extra == "data"')
    found = []
    for line in requires("actvec") or []:
        requirement, _, condition = line.partition(";")
        if not condition or condition.strip() in wanted:
            found.append(requirement.strip())
    return found


def _make_image(environment: Mapping[str, str]) -> modal.Image:
    """The image of every function; `environment` is set in its containers."""
    image = modal.Image.debian_slim(python_version="3.11")
    # In the container the image is there already, and the package's metadata is not.
    if modal.is_local():
        image = image.uv_pip_install(*requirements()).env(dict(environment))
        # What says our version: source alone does not.
        metadata = Path(str(distribution("actvec").locate_file("")), _METADATA)
        image = image.add_local_dir(metadata, f"/root/{_METADATA}")
        # The source of the demo model is more than its `.py` files.
        tokenizer = files("actvec.server") / "demo" / "tokenizer.json"
        image = image.add_local_file(str(tokenizer), "/root/actvec/server/demo/tokenizer.json")
    # Last, so that a changed line of ours does not install everything again.
    return image.add_local_python_source("actvec")


image = _make_image(
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


def hub_secrets() -> list[modal.Secret]:
    """The token that `HF_TOKEN` holds on this machine, for downloads of gated models."""
    name = "HF_TOKEN"
    return [modal.Secret.from_dict({name: os.environ[name]})] if os.environ.get(name) else []


ON_A_GPU: dict[str, Any] = {
    "image": image,
    "gpu": GPU,
    "memory": 65536,
    "volumes": {str(WEIGHTS): weights.with_mount_options(read_only=True), str(DATA): data},
    "secrets": [token],
    # Workers only read what `download` has put there. Asked, the hub might name a newer revision,
    # and its client would keep a connection open, which no snapshot survives.
    "env": {"HF_HUB_OFFLINE": "1"},
    # The first start reads all weights from a volume that nobody has read before.
    "startup_timeout": HOUR,
}

# Machines that wait for others: they have no GPU, and a day.
COORDINATING: dict[str, Any] = {
    "image": image,
    "env": ON_A_GPU["env"],
    "volumes": ON_A_GPU["volumes"],
    "timeout": 24 * HOUR,
}
