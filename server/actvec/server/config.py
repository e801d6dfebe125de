"""The server's options, parsed once."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is run.

    Attributes:
        model: `demo`, a hub id, or a local directory.
        revision: Branch, tag or commit on the hub; None for its default branch.
        layers: Target layers; None for three blocks ending at three quarters of the depth.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `auto`, or torch's name of a device.
        engine: `auto` (`packed` if it is found right for the model, else `plain`), `packed`,
            `plain` or `lens`.
        hook: What is taken from the target blocks; all but `resid_post` need `lens`.
        context: Tokens that a document may have, for a model whose config does not tell.
        check_seconds: How long the packed engine may be checked against the model's own forward
            pass; longer documents than could be checked are not served.
    """

    model: str = "demo"
    revision: str | None = None
    layers: tuple[int, ...] | None = None
    dtype: str = "auto"
    device: str = "auto"
    engine: str = "auto"
    hook: str = "resid_post"
    context: int | None = None
    check_seconds: float = 60.0


@dataclass(frozen=True)
class Limits:
    """What the server refuses beyond, and how much it computes at a time.

    Attributes:
        step_tokens: Tokens of one forward pass; None for what suits the device and its memory.
        queued_tokens: Tokens that wait at most, for streams and for unary calls each.
        document_tokens: Tokens of one document, BOS included; None for the model's context.
        text_bytes: Bytes of UTF-8 of one text.
        message_bytes: Bytes of one request message.
        message_documents: Documents of one request message.
        stream_documents: Documents of one stream that are in the server at a time.
        caller_documents: Documents of all calls of one caller that may be in the server at a time.
        caller_bytes: Bytes that all calls of one caller may hold in memory at a time: messages and
            pieces of means.
        memory_bytes: The same of all callers.
        streams: Streams that are open at a time.
        calls: Unary calls that run at a time.
        connections: Connections that are open at a time; None for 4096, or fewer where the process
            may not open so many files.
        upload_bytes: Bytes of the file of an uploaded mean.
        store_bytes: Bytes of all means in the store.
        commit_seconds: Time between two commits of a job that makes a mean.
        lease_seconds: Silence of a job's client after which another may take the job over.
        idle_seconds: Time after which a stream in which nothing happens and a client that takes no
            results are cut.
        silent_seconds: Time after which a connection is cut that makes no call.
        connection_seconds: Time after which a connection takes no more calls; those that run are
            finished, and clients open another.
    """

    step_tokens: int | None = None
    queued_tokens: int = 1 << 17
    document_tokens: int | None = None
    text_bytes: int = 4 << 20
    message_bytes: int = 16 << 20
    message_documents: int = 4096
    stream_documents: int = 512
    caller_documents: int = 1 << 18
    caller_bytes: int = 2 << 30
    memory_bytes: int = 4 << 30
    streams: int = 1024
    calls: int = 512
    connections: int | None = None
    upload_bytes: int = 4 << 30
    store_bytes: int = 100 << 30
    commit_seconds: float = 5.0
    lease_seconds: float = 30.0
    idle_seconds: float = 600.0
    silent_seconds: float = 15.0
    connection_seconds: float = 3600.0


@dataclass(frozen=True)
class AccessOptions:
    """Who may call.

    Attributes:
        token: A token that callers may bring; None without one.
        token_file: A file of further tokens, one a line.
        tls_cert: PEM file of the server's certificate chain; None for connections in the clear.
        tls_key: PEM file of its private key.
        tls_client_ca: PEM file of the authorities that sign callers' certificates; None where
            callers need none.
        open_health: Whether `Check` of health answers callers without a token.
        insecure: Whether everybody may call on an address that other machines reach.
    """

    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    open_health: bool = False
    insecure: bool = False


@dataclass(frozen=True)
class WatchOptions:
    """How the server is watched.

    Attributes:
        log_format: `text` or `json`.
        metrics_host: Address that Prometheus asks for metrics.
        metrics_port: Port of it, 0 for a free one; None for no metrics.
    """

    log_format: str = "text"
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None


@dataclass(frozen=True)
class ServerConfig:
    """Everything that `actvec-server` is told.

    Attributes:
        model: Which model, and how it is run.
        limits: What is refused beyond.
        access: Who may call.
        watch: How the server is watched.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        data_dir: Where means and job checkpoints are kept.
        grace: Seconds that calls in flight have to finish when the server stops.
        step_timeout: Seconds after which an engine that is still at one step is given up.
    """

    model: ModelOptions = ModelOptions()
    limits: Limits = Limits()
    access: AccessOptions = AccessOptions()
    watch: WatchOptions = WatchOptions()
    host: str = "127.0.0.1"
    port: int = 50051
    data_dir: Path = Path("data")
    grace: float = 30.0
    step_timeout: float = 600.0

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def address(self, port: int) -> str:
        """HOST:PORT, as clients write it."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"
