"""Folders in object stores and on the hub.

from actvec.client.bulk.remote import open_store

store = open_store("s3://bucket/vectors")
print(store.find())
"""

from actvec.client.bulk.remote.changing import read_file, write_file
from actvec.client.bulk.remote.folder import RemoteFolder
from actvec.client.bulk.remote.job import RemoteJob
from actvec.client.bulk.remote.opening import open_store
from actvec.client.bulk.remote.store import Store, is_remote, naming_store

__all__ = [
    "RemoteFolder",
    "RemoteJob",
    "Store",
    "is_remote",
    "naming_store",
    "open_store",
    "read_file",
    "write_file",
]
