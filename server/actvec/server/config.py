"""The server's settings. Each is described once; `actvec-server` makes its options from them."""

import ipaddress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

PORTS = (0, 65535)


@dataclass(frozen=True)
class Setting:
    """A description of a setting, beside its name, type and default.

    Attributes:
        help: Its effect, in a sentence or two. It names another setting in braces, such as
            {layers}, since only the program knows options.
        choices: The values of a string setting with fixed values.
        bounds: The smallest and the largest number. By default an integer is at least 1, and a
            float above 0.
        unset: The effect of None, if help names the default.
    """

    help: str
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int | None] | None = None
    unset: str = ""


@dataclass(frozen=True)
class ModelOptions:
    """The model, and how to run it."""

    model: Annotated[str, Setting("demo, an id of the Hugging Face hub, or a directory.")] = "demo"
    revision: Annotated[
        str | None, Setting("The branch, tag or commit on the hub.", unset="its main branch")
    ] = None
    adapter: Annotated[
        str | None,
        Setting(
            "A peft adapter such as a LoRA, as a hub id or a directory; merged into the model's "
            "weights."
        ),
    ] = None
    adapter_revision: Annotated[
        str | None, Setting("The adapter's branch, tag or commit on the hub.")
    ] = None
    layers: Annotated[
        tuple[int, ...] | None,
        Setting(
            "The blocks that a request uses by default, such as 25,26,27.",
            unset="three that end at 3/4 of the depth",
        ),
    ] = None
    max_layer: Annotated[
        int | None,
        Setting(
            "The last block that requests may name, or `last` for the model's last. All blocks up "
            "to it are loaded.",
            unset="the last of {layers}",
        ),
    ] = None
    dtype: Annotated[
        str,
        Setting(
            "The dtype of weights and arithmetic. auto: bfloat16 on a GPU, float32 on a CPU.",
            choices=("auto", "float32", "bfloat16", "float16"),
        ),
    ] = "auto"
    device: Annotated[str, Setting("cpu, cuda:0 and so on. auto: the first GPU, or the CPU.")] = (
        "auto"
    )
    engine: Annotated[
        str,
        Setting(
            "packed: many documents in one forward pass. plain: transformers itself, one document "
            "at a time. auto: packed if it is right for the model, else plain. lens: "
            "TransformerLens' own components, as a slow reference.",
            choices=("auto", "packed", "plain", "lens"),
        ),
    ] = "auto"
    context: Annotated[
        int | None,
        Setting(
            "The model's context in tokens, instead of its config's; needed if that names none."
        ),
    ] = None
    check_seconds: Annotated[
        float,
        Setting(
            "Seconds that the check at start may take. If long documents take longer to check, the "
            "server does not accept them, and a warning gives the limit."
        ),
    ] = 60.0
    hook: Annotated[
        str,
        Setting(
            "The states to take in each block, unless a request names others: resid_post (the "
            "residual stream after the block), resid_pre (before it), attn_out or mlp_out (what "
            "its attention or MLP adds); with {engine} lens any of TransformerLens' hook points."
        ),
    ] = "resid_post"


@dataclass(frozen=True)
class AccessOptions:
    """Who may call."""

    token: str | None = field(default=None, repr=False)
    """The token of callers. It has no option, since every user of a machine sees command lines."""

    token_file: Annotated[
        Path | None,
        Setting(
            "A file of tokens, one per line; a caller must send one of them. Read again on SIGHUP. "
            "The environment variable ACTVEC_TOKEN may hold one more."
        ),
    ] = None
    tls_cert: Annotated[
        Path | None, Setting("The server's certificate chain, PEM. Read again on SIGHUP.")
    ] = None
    tls_key: Annotated[
        Path | None, Setting("The private key of {tls_cert}, PEM. Read again on SIGHUP.")
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        Setting("Certificates of authorities, PEM; one must have signed a caller's certificate."),
    ] = None
    open_health: Annotated[
        bool, Setting("Answer the health service's Check without a token; its Watch needs one.")
    ] = False
    insecure: Annotated[
        bool, Setting("Let everybody call, even if other machines can reach {host}.")
    ] = False


@dataclass(frozen=True)
class Limits:
    """Limits on requests, and on the work at a time."""

    step_tokens: Annotated[
        int | None,
        Setting(
            "Tokens of one forward pass.",
            unset="8192 on a GPU, 2048 on a CPU, fewer if memory is short",
        ),
    ] = None
    queued_tokens: Annotated[
        int, Setting("Tokens that wait for the engine, for streams and for unary calls each.")
    ] = 1 << 17
    document_tokens: Annotated[
        int | None, Setting("Tokens of one document, BOS included.", unset="the model's context")
    ] = None
    vector_numbers: Annotated[int, Setting("Numbers of one vector: layers * pools * width.")] = (
        4 << 20
    )
    text_bytes: Annotated[int, Setting("Bytes of one text in UTF-8.")] = 4 << 20
    # A text of `text_bytes` and room for its document. gRPC copies a message on the event loop, in
    # about 0.6 ms per MiB, while all other calls wait.
    message_bytes: Annotated[int, Setting("Bytes of one request message.")] = 5 << 20
    message_documents: Annotated[int, Setting("Documents of one request message.")] = 4096
    stream_documents: Annotated[
        int, Setting("Documents of one stream in the server at a time.")
    ] = 512
    caller_documents: Annotated[
        int,
        Setting(
            "Documents of one caller in the server at a time; each of its streams counts as "
            "{stream_documents}. A token identifies a caller, else a certificate, else an address."
        ),
    ] = 1 << 18
    caller_bytes: Annotated[
        int,
        Setting(
            "Bytes of memory that the calls of one caller hold at a time: messages and pieces of "
            "means."
        ),
    ] = 2 << 30
    memory_bytes: Annotated[int, Setting("The same, for all callers together.")] = 4 << 30
    streams: Annotated[int, Setting("Streams open at a time.")] = 1024
    calls: Annotated[int, Setting("Unary calls at a time.")] = 512
    connections: Annotated[
        int | None,
        Setting(
            "Connections open at a time.",
            unset="4096, fewer if the process may not open that many files",
        ),
    ] = None
    upload_bytes: Annotated[int, Setting("Bytes of the file of an uploaded mean.")] = 4 << 30
    store_bytes: Annotated[int, Setting("Bytes of all stored means.")] = 100 << 30
    commit_seconds: Annotated[
        float, Setting("Seconds between two commits of a mean.", bounds=(0, None))
    ] = 5.0
    lease_seconds: Annotated[
        float,
        Setting(
            "Seconds after which another client may take over the job of a mean whose client sends "
            "nothing.",
            bounds=(0, None),
        ),
    ] = 30.0
    idle_seconds: Annotated[
        float, Setting("Seconds without activity after which a stream is ended.")
    ] = 600.0
    silent_seconds: Annotated[
        float, Setting("Seconds without a call after which a connection is cut.")
    ] = 15.0
    connection_seconds: Annotated[
        float,
        Setting("Seconds after which a connection accepts no more calls; running calls finish."),
    ] = 3600.0


@dataclass(frozen=True)
class WatchOptions:
    """How to watch the server."""

    log_format: Annotated[
        str,
        Setting(
            "The format of the log on standard error, one line per call.", choices=("text", "json")
        ),
    ] = "text"
    log_level: Annotated[
        str,
        Setting(
            "The lowest level to log; debug shows the traceback of a failed start.",
            choices=("debug", "info", "warning"),
        ),
    ] = "info"
    metrics_port: Annotated[
        int | None,
        Setting("The port for Prometheus; 0 takes a free one.", bounds=PORTS, unset="no metrics"),
    ] = None
    metrics_host: Annotated[
        str,
        Setting("The address of {metrics_port}. It needs no token, and shows counts but no texts."),
    ] = "127.0.0.1"


@dataclass(frozen=True)
class ServerConfig:
    """The whole configuration of `actvec-server`."""

    model: ModelOptions = ModelOptions()
    limits: Limits = Limits()
    access: AccessOptions = AccessOptions()
    watch: WatchOptions = WatchOptions()
    devices: Annotated[
        tuple[str, ...] | None,
        Setting(
            "Several devices, instead of {device}: GPUs by number (0-7; 0,2,5), or by name "
            "(cpu,cpu). Each has a copy of the model and a thread; they share the calls."
        ),
    ] = None
    host: Annotated[str, Setting("The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Setting("The port; 0 takes a free one.", bounds=PORTS)] = 50051
    data_dir: Annotated[Path, Setting("The directory for means and job checkpoints.")] = Path(
        "data"
    )
    grace: Annotated[
        float,
        Setting(
            "Seconds that calls have to finish at shutdown, and jobs as much again.",
            bounds=(0, None),
        ),
    ] = 30.0
    step_timeout: Annotated[
        float,
        Setting(
            "Seconds that a forward pass may take. After that the engine counts as hung, and the "
            "program ends, or continues with its other {devices}."
        ),
    ] = 600.0

    @property
    def copies(self) -> list[ModelOptions]:
        """The options of the model, for each device."""
        return [replace(self.model, device=name) for name in self.devices or (self.model.device,)]

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
