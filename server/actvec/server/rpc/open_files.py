"""Limits on connections: each is an open file, like everything else the process opens."""

import resource

from actvec.server.errors import StartupError

DEFAULT_CONNECTIONS = 4096

# Files besides connections: the model, the store, checkpoints, the log, threads.
OWN_FILES = 256


def allow_connections(asked: int | None) -> int:
    """Raise the soft limit of open files as far as is needed; returns how many connections fit.

    Args:
        asked: What the operator wants; None for 4096, or fewer where the hard limit is lower.

    Raises:
        StartupError: the hard limit is too low for them.
    """
    wanted = (DEFAULT_CONNECTIONS if asked is None else asked) + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else hard
    if (asked is not None and wanted > most) or most <= OWN_FILES:
        raise StartupError(
            (
                f"{wanted - OWN_FILES} connections need {wanted} open files, and this "
                f"process may have {most}, enough for {max(most - OWN_FILES, 0)}"
            ),
            setting="connections",
        )
    files = min(wanted, most)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return files - OWN_FILES
