"""Changes of a store that others change too, and single files in it."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from actvec.client.bulk.remote.opening import open_store, split_url
from actvec.client.bulk.remote.store import Store, StoreBusyError, naming_store
from actvec.client.errors import NotFound

log = logging.getLogger(__name__)

# Seconds to wait for a store that takes no change for now: the hub counts commits by the hour.
_PATIENCE = 4000.0
# Changes that others may overtake, or that a busy store may put off.
_TRIES = 100


def change(
    store: Store, files: Mapping[str, Path | None], look: Callable[[], object], *, wait: bool
) -> bool:
    """Change a store, whatever else changes it; False if it is busy, and this is not to wait.

    Args:
        store: The store.
        files: See `Store.change`.
        look: Reads the store before each attempt; it may raise to prevent the change.
        wait: Whether to wait for a busy store.

    Raises:
        StoreBusyError: it was busy all the time.
        OSError: others were faster each time.
    """
    ends = time.monotonic() + _PATIENCE
    for _ in range(_TRIES):
        try:
            look()
            if store.change(files):
                return True
        except StoreBusyError as busy:
            log.warning("%s", busy)
            if not wait:
                return False
            if time.monotonic() + busy.seconds > ends:
                raise
            time.sleep(busy.seconds)
    raise OSError(f"others changed {store.url} during each of {_TRIES} attempts; try again later")


def read_file(url: str, setting: str) -> bytes:
    """The content of a file in a store.

    Args:
        url: Its URL.
        setting: The argument that gave it, for errors.

    Raises:
        InvalidArgument: the URL is of no known store, or names no file.
        MissingExtra: the package that knows the store is not installed.
        NotFound: there is no such file.
        OSError: the store cannot be read.
    """
    folder, name = split_url(url, setting)
    store = open_store(folder, setting)
    with naming_store(url):
        content = store.read(name)
    if content is None:
        raise NotFound(f"there is no {url}", setting=setting)
    return content


def write_file(url: str, content: bytes, setting: str) -> None:
    """Write a file in a store, whole or not at all.

    Args:
        url: Its URL.
        content: Its content.
        setting: The argument that gave the URL, for errors.

    Raises:
        InvalidArgument: the URL is of no known store, or names no file.
        MissingExtra: the package that knows the store is not installed.
        OSError: the store cannot be written to.
    """
    folder, name = split_url(url, setting)
    store = open_store(folder, setting)
    with naming_store(url), TemporaryDirectory(prefix="actvec-") as temporary:
        path = Path(temporary, "file")
        path.write_bytes(content)
        change(store, {name: path}, store.look, wait=True)
