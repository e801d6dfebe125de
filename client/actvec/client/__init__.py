"""Documents in, activation vectors out: the client of an actvec server.

    from actvec.client import Client

    with Client("127.0.0.1:50051") as client:
        vector = client.extract(
            "Some text.", layers=[1, 2], separate=True, pools=["mean", "last"]
        )
        vector.array  # float32 [L, K, D]; vector.values is the same, flat
        vector.pools["mean"]  # float32 [L, D], or [D] of the layers' mean
        vector.stamp  # what it depends on besides the text

Light: it needs gRPC and numpy, and neither torch nor transformers.
"""

from actvec.client.api.async_client import AsyncClient
from actvec.client.api.client import Client
from actvec.client.errors import (
    Aborted,
    ActvecError,
    ClientClosed,
    CorpusChanged,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InsecureToken,
    InvalidArgument,
    InvalidTarget,
    MissingExtra,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ProtocolError,
    ResourceExhausted,
    ServerError,
    ServerUnavailable,
    SourceBroken,
    SourceDamaged,
    StampChanged,
    Unauthenticated,
    Unimplemented,
    UnsupportedInput,
    WorkerNotAwake,
)
from actvec.client.records.content import Message, Source, Span
from actvec.client.records.means import CorpusMean, MeanFile, MeanModel, MeanProgress, Skipped
from actvec.client.records.model import Limits, ModeInfo, ModelInfo, Versions
from actvec.client.records.settings import (
    Encoding,
    Mode,
    StateSettings,
    Truncation,
    VectorSettings,
)
from actvec.client.records.stamp import Pool, Stamp
from actvec.client.records.vectors import Document, Failure, Result, Vector, VectorArray
from actvec.client.stored.hub import push_to_hub
from actvec.client.stored.loading import load
from actvec.client.stored.vectors import StoredVectors
from actvec.client.transport.address import DEFAULT_TARGET, Waking
from actvec.client.transport.channel import TlsFiles
from actvec.client.workers.directory import Deployment, Starting

__all__ = [
    "DEFAULT_TARGET",
    "Aborted",
    "ActvecError",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "CorpusChanged",
    "CorpusMean",
    "DataLoss",
    "DeadlineExceeded",
    "Deployment",
    "Document",
    "Encoding",
    "FailedPrecondition",
    "Failure",
    "InsecureToken",
    "InvalidArgument",
    "InvalidTarget",
    "Limits",
    "MeanFile",
    "MeanModel",
    "MeanProgress",
    "Message",
    "MissingExtra",
    "Mode",
    "ModeInfo",
    "ModelInfo",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Pool",
    "ProtocolError",
    "ResourceExhausted",
    "Result",
    "ServerError",
    "ServerUnavailable",
    "Skipped",
    "Source",
    "SourceBroken",
    "SourceDamaged",
    "Span",
    "Stamp",
    "StampChanged",
    "Starting",
    "StateSettings",
    "StoredVectors",
    "TlsFiles",
    "Truncation",
    "Unauthenticated",
    "Unimplemented",
    "UnsupportedInput",
    "Vector",
    "VectorArray",
    "VectorSettings",
    "Versions",
    "Waking",
    "WorkerNotAwake",
    "load",
    "push_to_hub",
]
