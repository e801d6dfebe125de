"""How many connections the process may hold: each is an open file, and so is all else it does."""

import resource

from actvec.server.errors import StartupError

DEFAULT_CONNECTIONS = 4096

# Files beside connections: the model's, the store's, checkpoints, the log, threads' own.
OWN_FILES = 256


def allow_connections(asked: int | None) -> int:
    """Raise the soft limit of open files as far as is needed; returns how many connections fit.

    Args:
        asked: What the operator wants; None for 4096, or fewer where the hard limit is lower.

    Raises:
        StartupError: what is asked for does not fit below the hard limit.
    """
    wanted = (DEFAULT_CONNECTIONS if asked is None else asked) + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else hard
    if (asked is not None and wanted > most) or most <= OWN_FILES:
        raise StartupError(
            f"{wanted - OWN_FILES} connections need {wanted} open files, and this process may have "
            f"{most}: raise that (ulimit -Hn, LimitNOFILE=), or set --connections "
            f"{max(most - OWN_FILES, 1)}"
        )
    files = min(wanted, most)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return files - OWN_FILES
