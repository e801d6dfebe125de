"""Settings of calls, streams and jobs: how documents become vectors or means."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, TypedDict, get_args

from actvec.pooling import PRESETS, parse_pool
from actvec.pooling.errors import PoolError

Mode = Literal["short", "long"]
Truncation = Literal["error", "start", "end"]
Encoding = Literal["float32", "float16", "values"]

# Manifests of jobs have always recorded these, even at their defaults.
_ALWAYS = ("mode", "center", "truncation", "prepend_bos")


class StateKeywords(TypedDict, total=False):
    """Keywords of calls that read documents; see `StateSettings`."""

    layers: Sequence[int]
    separate: bool
    hook: str
    truncation: Truncation
    prepend_bos: bool | None
    add_generation_prompt: bool
    chat_template_kwargs: Mapping[str, Any]


class VectorKeywords(StateKeywords, total=False):
    """Keywords of calls that make vectors; see `VectorSettings`."""

    mode: Mode | None
    pools: Sequence[str]
    center: str | None
    encoding: Encoding


@dataclass(frozen=True, kw_only=True)
class StateSettings:
    """How documents become the states of their tokens.

    Attributes:
        layers: The layers, block numbers from 0, in any order; empty for the server's default.
            `client.info()` lists those on offer.
        separate: Whether to keep layers separate, instead of averaging them.
        hook: Where to capture a layer's states: `resid_post` (the residual stream after the block),
            `resid_pre` (before it), `attn_out` or `mlp_out` (what its attention or MLP adds); empty
            for the server's default.
        truncation: How to treat a document beyond the model's context: as an `error`, or by keeping
            its `start` or its `end`, which sets `truncated` in the vector.
        prepend_bos: Whether to put the tokenizer's BOS token before a text; None to do so if the
            tokenizer has one. The stamp records it.
        add_generation_prompt: For chats: whether the template ends with the beginning of an answer.
        chat_template_kwargs: For chats: further arguments of the model's template.

    Raises:
        ValueError: the truncation is unknown, or a layer is negative or repeated.
        TypeError: a layer is not a whole number, or a template argument does not fit JSON.
    """

    layers: Sequence[int] = ()
    separate: bool = False
    hook: str = ""
    truncation: Truncation = "error"
    prepend_bos: bool | None = None
    add_generation_prompt: bool = False
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_known("truncation", self.truncation, get_args(Truncation))
        object.__setattr__(self, "layers", _layers(self.layers))
        # As they travel, and as manifests hold them. Raises if JSON cannot hold them.
        kwargs = json.loads(json.dumps(dict(self.chat_template_kwargs)))
        object.__setattr__(self, "chat_template_kwargs", kwargs)


@dataclass(frozen=True, kw_only=True)
class MeanSettings(StateSettings):
    """How a job turns documents into a mean; the same settings reopen the job.

    Attributes:
        job: Name of the job: letters, digits, `.`, `_` and `-`, at most 64.
        name: Name of the finished mean, in the same form.
        variance: Whether to keep second moments too.
        take_over: Whether to take the job from another client that fell silent.
    """

    job: str
    name: str
    variance: bool = False
    take_over: bool = False


@dataclass(frozen=True, kw_only=True)
class VectorSettings(StateSettings):
    """How documents become vectors. Methods accept it whole, or its attributes as keywords.

    Examples:
        >>> client.extract("Some text.", mode="long", center="my-corpus")
        >>> client.extract("Some text.", VectorSettings(mode="long", center="my-corpus"))

    Attributes:
        mode: A preset of pools: `short` is `exp_933` (weights that halve with every 6.7% of the
            document), `long` is `last`, `exp_977`, `exp_933` and `exp_841`.
        pools: Your own pools instead, in the order of the vector: `last`, `mean`, `mean_no_bos`,
            `exp:0.1` (half-life as a fraction of the document), `exp_tokens:8` (in tokens),
            `position:0` (`position:-1` is the last token), `span:answer`, or a preset's pool by
            name.
        center: The corpus mean to subtract: its name, its id, or `latest` for the newest one that
            fits, which may be another one tomorrow; None for raw vectors.
        encoding: How the numbers travel; they always arrive as float32.

    Raises:
        ValueError: see `StateSettings`; or neither `mode` nor `pools`, or both; or an empty
            `center`.
        TypeError: see `StateSettings`; or a pool is not a str.
    """

    mode: Mode | None = None
    pools: Sequence[str] = ()
    center: str | None = None
    encoding: Encoding = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.pools, str):
            raise TypeError(f"pools are a list: pools=[{self.pools!r}]")
        object.__setattr__(self, "pools", tuple(self.pools))
        if not all(isinstance(pool, str) for pool in self.pools):
            raise TypeError(f"pools are written as strings, not {self.pools!r:.80}")
        if self.mode is not None and self.pools:
            raise ValueError(
                f"mode={self.mode!r} names pools already; give either a mode or pools, not both"
            )
        if self.mode is None and not self.pools:
            raise ValueError(
                "say which pools a vector has: mode='short' (exp_933: D numbers), mode='long'"
                " (last, exp_977, exp_933, exp_841: 4 D), or pools, for example pools=['mean'] or"
                " pools=['last', 'exp:0.1', 'span:answer']"
            )
        if self.mode is not None:
            check_known("mode", self.mode, get_args(Mode))
        check_known("encoding", self.encoding, get_args(Encoding))
        if self.center is not None and not self.center:
            raise ValueError("center is a corpus mean's id, its name or 'latest', or None for raw")

    @classmethod
    def of(cls, settings: Self | None, keywords: VectorKeywords) -> Self:
        """Combine the settings that a caller passed, whole or by name.

        Raises:
            TypeError: both were passed, or a name is unknown.
            ValueError: see the class.
        """
        if settings is None:
            return cls(**keywords)
        if keywords:
            raise TypeError(f"give settings, or {', '.join(keywords)} by name, not both")
        return settings

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The pools in canonical form: `exp_933` for `exp:0.067` and for mode `short`.

        A pool that only the server knows stays as written.
        """
        if self.mode is not None:
            return tuple(pool.name for pool in PRESETS[self.mode])
        return tuple(map(canonical_pool, self.pools))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, without `encoding`, which does not change a vector.

        Settings of later versions appear only if they differ from their defaults.
        """
        record = asdict(self)
        del record["encoding"]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in record.items()
            if name in _ALWAYS or value
        }


def canonical_pool(written: str) -> str:
    """The canonical form of a written pool; an unknown pool stays as it is."""
    try:
        return parse_pool(written).name
    except PoolError:
        return written


def check_known(name: str, value: object, known: tuple[str, ...]) -> None:
    """Check that a value is one of the known ones.

    Raises:
        ValueError: it is not.
    """
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")


def _layers(given: Iterable[int]) -> tuple[int, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(
            f"layers are a list of blocks' numbers, not {given!r:.80}; write layers=[8], range(9)"
            " or client.info().layers_on_offer"
        )
    layers = tuple(given)
    for layer in layers:
        if isinstance(layer, bool) or not hasattr(layer, "__index__"):
            raise TypeError(f"a layer is a block's number, not {layer!r:.80}")
        if layer < 0:
            raise ValueError(f"layers are numbered from 0, not {layer}")
    if len(set(layers)) < len(layers):
        raise ValueError(f"each layer must be named once, not {', '.join(map(str, layers))}")
    return tuple(sorted(int(layer) for layer in layers))
