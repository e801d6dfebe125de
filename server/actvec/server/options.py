"""The command line of `actvec-server`, and the way from it to a `ServerConfig`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import click

from actvec.server.config import AccessOptions, Limits, ModelOptions, ServerConfig, WatchOptions

Config = TypeVar("Config")
Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULTS = ServerConfig()
_AT_LEAST_ONE = click.IntRange(1)
_FILE = click.Path(dir_okay=False, path_type=Path)


class SectionedCommand(click.Command):
    """A command whose help has its options under headings, in their order."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each section."""
        sections = groupby(self.get_params(ctx), lambda param: getattr(param, "section", "Other"))
        for title, params in sections:
            records = [param.get_help_record(ctx) for param in params]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])


class _SectionedOption(click.Option):
    def __init__(self, *args: Any, section: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section


class _Layers(click.ParamType[tuple[int, ...]]):
    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return tuple(int(layer) for layer in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of block numbers such as 25,26,27", param, ctx)


def server_options(command: Command) -> Command:
    """All options, for a `SectionedCommand`."""
    sections = (_MODEL, _ADDRESS, _ACCESS, _LIMITS, _WATCH)
    for options in reversed(sections):
        for option in reversed(options):
            command = option(command)
    return command


def server_config(options: Mapping[str, Any]) -> ServerConfig:
    """The configuration that the options say; each is named as the field that it sets."""
    token = os.environ.get("ACTVEC_TOKEN", "").strip()
    return _taken(
        ServerConfig,
        options,
        model=_taken(ModelOptions, options),
        limits=_taken(Limits, options),
        access=_taken(AccessOptions, options, token=token or None),
        watch=_taken(WatchOptions, options),
    )


def _taken(kind: type[Config], options: Mapping[str, Any], **rest: Any) -> Config:
    names = {field.name for field in fields(kind)} & options.keys() - rest.keys()  # type: ignore[arg-type]
    return kind(**{name: options[name] for name in names}, **rest)


def _section(title: str) -> Callable[..., Callable[[Command], Command]]:
    def option(*names: str, **attributes: Any) -> Callable[[Command], Command]:
        return click.option(*names, cls=_SectionedOption, section=title, **attributes)

    return option


_model = _section("Model")
_MODEL = (
    _model("--model", default=_DEFAULTS.model.model, help="demo, a hub id, or a directory."),
    _model("--revision", help="Branch, tag or commit on the hub.  [default: its main branch]"),
    _model(
        "--layers",
        type=_Layers(),
        help="Blocks whose residual streams are averaged, such as 25,26,27.  "
        "[default: three ending at 3/4 of the depth]",
    ),
    _model(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default=_DEFAULTS.model.dtype,
        help="Of weights and arithmetic.",
    ),
    _model("--device", default=_DEFAULTS.model.device, help="auto, cpu, cuda:0, ..."),
    _model(
        "--engine",
        type=click.Choice(["auto", "packed", "plain", "lens"]),
        default=_DEFAULTS.model.engine,
        help="packed runs many documents in one forward pass; plain runs transformers itself, one "
        "document at a time; auto is packed if it is right for the model, else plain; lens runs "
        "TransformerLens' own components, slow, as a reference.",
    ),
    _model(
        "--context",
        type=_AT_LEAST_ONE,
        help="Tokens that a document may have, for a model whose config does not tell.",
    ),
    _model(
        "--check-seconds",
        type=click.FloatRange(0, min_open=True),
        default=_DEFAULTS.model.check_seconds,
        help="Seconds that the check of the packed engine may take at the start.",
    ),
    _model(
        "--hook", default=_DEFAULTS.model.hook, help="What is taken from the blocks (lens only)."
    ),
)

_address = _section("Serving")
_ADDRESS = (
    _address("--host", default=_DEFAULTS.host, help="Address to listen on."),
    _address(
        "--port", type=click.IntRange(0, 65535), default=_DEFAULTS.port, help="0: a free one."
    ),
    _address(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=_DEFAULTS.data_dir,
        help="Where means and job checkpoints are kept.",
    ),
    _address(
        "--grace",
        type=click.FloatRange(0),
        default=_DEFAULTS.grace,
        help="Seconds that calls have to finish when the server ends, and jobs then to be written.",
    ),
    _address(
        "--step-timeout",
        type=click.FloatRange(0, min_open=True),
        default=_DEFAULTS.step_timeout,
        help="Seconds that a forward pass may take; then the engine hangs, and the program ends.",
    ),
)

_access = _section("Who may call")
_ACCESS = (
    _access(
        "--token-file",
        type=_FILE,
        help="Tokens, one a line, of which a caller brings one; read again on SIGHUP. The variable "
        "ACTVEC_TOKEN may hold one more.",
    ),
    _access("--tls-cert", type=_FILE, help="The server's certificate chain, PEM."),
    _access("--tls-key", type=_FILE, help="Its private key, PEM. Both are read again on SIGHUP."),
    _access(
        "--tls-client-ca",
        type=_FILE,
        help="Authorities of which one must have signed a caller's certificate, PEM.",
    ),
    _access(
        "--open-health",
        is_flag=True,
        help="Answer health's Check without a token, too; its Watch needs one.",
    ),
    _access(
        "--insecure",
        is_flag=True,
        help="Let everybody call, also where other machines reach --host.",
    ),
)

_section_of_limits = _section("Limits")


def _limit(
    name: str, description: str, smallest: click.IntRange | click.FloatRange = _AT_LEAST_ONE
) -> Callable[[Command], Command]:
    default = getattr(_DEFAULTS.limits, name.removeprefix("--").replace("-", "_"))
    return _section_of_limits(name, type=smallest, default=default, help=description)


_LIMITS = (
    _limit(
        "--step-tokens",
        "Tokens of one forward pass.  [default: 8192 on a GPU, 2048 on a CPU, fewer where memory "
        "is short]",
    ),
    _limit("--queued-tokens", "Tokens that wait, of streams and of unary calls each."),
    _limit(
        "--document-tokens", "Tokens of one document, BOS included.  [default: the model's context]"
    ),
    _limit("--text-bytes", "Bytes of UTF-8 of one text."),
    _limit("--message-bytes", "Bytes of one request message."),
    _limit("--message-documents", "Documents of one request message."),
    _limit("--stream-documents", "Documents of one stream in the server at a time."),
    _limit(
        "--caller-documents",
        "Documents of one caller in the server at a time: each of its streams counts for "
        "--stream-documents. A caller is a token, else a certificate, else an address.",
    ),
    _limit(
        "--caller-bytes",
        "Bytes of memory that the calls of one caller hold at a time: messages, pieces of means.",
    ),
    _limit("--memory-bytes", "The same of all callers."),
    _limit("--streams", "Streams open at a time."),
    _limit("--calls", "Unary calls at a time."),
    _limit(
        "--connections",
        "Connections open at a time.  [default: 4096, fewer where the process may not open so many "
        "files]",
    ),
    _limit("--upload-bytes", "Bytes of the file of an uploaded mean."),
    _limit("--store-bytes", "Bytes of all stored means."),
    _limit("--commit-seconds", "Seconds between two commits of a mean.", click.FloatRange(0)),
    _limit(
        "--lease-seconds",
        "Seconds of silence of a mean's client after which another may take its job over.",
        click.FloatRange(0),
    ),
    _limit(
        "--idle-seconds",
        "Seconds in which nothing happens until a stream is ended.",
        click.FloatRange(0, min_open=True),
    ),
    _limit(
        "--silent-seconds",
        "Seconds without a call until a connection is cut.",
        click.FloatRange(0, min_open=True),
    ),
    _limit(
        "--connection-seconds",
        "Seconds after which a connection takes no more calls; those that run go on.",
        click.FloatRange(0, min_open=True),
    ),
)

_watch = _section("Watching")
_WATCH = (
    _watch(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default=_DEFAULTS.watch.log_format,
        help="Of the log on standard error, a line a call.",
    ),
    _watch(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="Port for Prometheus, 0 for a free one.  [default: no metrics]",
    ),
    _watch(
        "--metrics-host",
        default=_DEFAULTS.watch.metrics_host,
        help="Address of that port. Whoever reaches it is answered: counts, no texts.",
    ),
)
