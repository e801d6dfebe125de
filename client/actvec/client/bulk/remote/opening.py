"""Which store a URL names."""

from actvec.client.bulk.remote.hub import HubStore
from actvec.client.bulk.remote.objects import PACKAGES, ObjectStore
from actvec.client.bulk.remote.store import Store
from actvec.client.errors import InvalidArgument


def open_store(url: str, setting: str = "out") -> Store:
    """The store of a folder, without reading or writing anything.

    Args:
        url: `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or `hf://datasets/OWNER/NAME/PATH`.
        setting: The argument that gave the URL, for errors.

    Raises:
        InvalidArgument: the URL is not of a known store.
        MissingExtra: the package that knows the store is not installed.
    """
    scheme, _, path = url.partition("://")
    if scheme == "hf":
        return HubStore(url.rstrip("/"), setting)
    if scheme not in PACKAGES or not path.strip("/"):
        raise InvalidArgument(
            f"cannot use {url}: give a folder of this machine, s3://BUCKET/PATH,"
            " gs://BUCKET/PATH or hf://datasets/OWNER/NAME/PATH",
            setting=setting,
        )
    return ObjectStore(url.rstrip("/"))


def split_url(url: str, setting: str = "out") -> tuple[str, str]:
    """The URL of a file's folder, and the file's name.

    Examples:
        >>> split_url("s3://bucket/means/corpus.safetensors")
        ('s3://bucket/means', 'corpus.safetensors')

    Raises:
        InvalidArgument: it names no file in a folder.
    """
    folder, _, name = url.rpartition("/")
    if not name or folder.endswith("/"):
        raise InvalidArgument(f"{url} names no file in a folder", setting=setting)
    return folder, name
