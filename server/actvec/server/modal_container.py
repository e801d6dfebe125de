"""What a container on Modal computes with.

It imports torch, and so belongs to containers alone; and nothing of gRPC, since a snapshot is taken
when a worker is made.
"""

import os
from pathlib import Path

from actvec.server.config import AccessOptions, Limits, ModelOptions, ServerConfig
from actvec.server.site import Site
from actvec.server.worker import Worker


def make_worker(model: str, site: Site, device: str = "auto") -> Worker:
    """The model, loaded on a device, with the means of the volume.

    Raises:
        StartupError: there is no such model, or no such device.
    """
    return Worker.load(ModelOptions(model=model, device=device), site.local, site.replica())


def server_config(
    model: str,
    data_dir: Path,
    *,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 0,
) -> ServerConfig:
    """How a container serves. Secrets are read here, not when a snapshot is taken."""
    return ServerConfig(
        model=ModelOptions(model=model, device=device),
        # A commit moves a checkpoint to the volume.
        limits=Limits(commit_seconds=30.0),
        access=AccessOptions(token=os.environ.get("ACTVEC_TOKEN")),
        host=host,
        port=port,
        data_dir=data_dir,
        # Modal kills a container 30 seconds after it was told to end.
        grace=10.0,
    )
