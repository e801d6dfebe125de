"""Documents in, activation vectors out: the client of an actvec server.

    from actvec.client import Client

    with Client("127.0.0.1:50051") as client:
        vector = client.extract("Some text.", mode="long")
        vector.values                  # float32 [K * D]
        vector.pools["exp_933"]        # float32 [D]
        vector.stamp                   # what it depends on beside the text

Light: it needs gRPC and numpy, and neither torch nor transformers.
"""

from actvec.client.aio import AsyncClient
from actvec.client.channel import DEFAULT_TARGET, TlsFiles
from actvec.client.deployment import Deployment, Starting
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
from actvec.client.means import CorpusMean, MeanFile, MeanModel, MeanProgress, Skipped
from actvec.client.model import Limits, ModeInfo, ModelInfo, Versions
from actvec.client.place import Waking
from actvec.client.sync import Client
from actvec.client.vectors import (
    Document,
    Encoding,
    Failure,
    Mode,
    Pool,
    Result,
    Stamp,
    Truncation,
    Vector,
)

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
    "SourceBroken",
    "SourceDamaged",
    "Stamp",
    "StampChanged",
    "Starting",
    "TlsFiles",
    "Truncation",
    "Unauthenticated",
    "Unimplemented",
    "UnsupportedInput",
    "Vector",
    "Versions",
    "Waking",
    "WorkerNotAwake",
]
