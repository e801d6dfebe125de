"""What a container on Modal runs: pinned requirements, our source, what a deployment chose."""

from collections.abc import Mapping
from importlib.metadata import distribution, requires, version
from pathlib import Path

import modal

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


def make_image(environment: Mapping[str, str]) -> modal.Image:
    """The image of every function; `environment` is set in its containers."""
    image = modal.Image.debian_slim(python_version="3.11")
    # In the container the image is there already, and the package's metadata is not.
    if modal.is_local():
        image = image.uv_pip_install(*requirements()).env(dict(environment))
        # What says our version: source alone does not.
        metadata = Path(str(distribution("actvec").locate_file("")), _METADATA)
        image = image.add_local_dir(metadata, f"/root/{_METADATA}")
    # Last, so that a changed line of ours does not install everything again.
    return image.add_local_python_source("actvec")
