"""The stamp of a vector: everything it depends on except its document."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Self, get_args

from actvec.client.records.display import record
from actvec.client.records.settings import Mode, Truncation
from actvec.pooling import PRESETS


@dataclass(frozen=True)
class Pool:
    """One pool of a vector.

    Attributes:
        name: Its canonical written form: `last`, `exp_933`, `span:answer`.
        depth: Half-life as a fraction of the document; 0 for pools without one.
    """

    name: str
    depth: float


@dataclass(frozen=True)
class Stamp:
    """What makes a vector reproducible: the same stamp and document give the same vector.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        tokenizer_sha256: SHA-256 of the tokenizer's canonical JSON.
        dtype: dtype of the weights.
        layers: Block numbers, from 0, ascending.
        hook: Where in each block the states were captured, for example `resid_post`.
        prepend_bos: Whether BOS comes first in a text.
        mode: `short` or `long` if the pools are those of a preset, however requested; else None.
        pools: The pools, in the order of the vector.
        truncation: How documents beyond the context were treated: `error`, or `start` or `end`
            kept.
        corpus_mean_id: The subtracted mean; empty for a raw vector.
        corpus_mean_sha256: SHA-256 of that mean's file; empty for a raw vector.
        actvec_version: Version of actvec that made the vector.
        separate_layers: Whether layers are separate, instead of averaged.
        chat_template_sha256: SHA-256 of the chat template; empty for a model without one.
        chat_template_kwargs: The template's arguments beside the messages, as JSON; empty for none.
        add_generation_prompt: Whether the template ended with the beginning of an answer.
        chat_template_date: The date passed to a template that asks for today's.
        default_target: Whether layers and hook are the server's defaults. It affects names of
            files, not equality.
    """

    model: str
    revision: str
    tokenizer_sha256: str
    dtype: str
    layers: tuple[int, ...]
    hook: str
    prepend_bos: bool
    mode: Mode | None
    pools: tuple[Pool, ...]
    truncation: Truncation
    corpus_mean_id: str
    corpus_mean_sha256: str
    actvec_version: str
    separate_layers: bool = False
    chat_template_sha256: str = ""
    chat_template_kwargs: str = ""
    add_generation_prompt: bool = False
    chat_template_date: str = ""
    default_target: bool = field(default=True, compare=False)

    @property
    def centered(self) -> bool:
        """Whether a corpus mean was subtracted."""
        return bool(self.corpus_mean_id)

    @property
    def shape(self) -> tuple[int, int]:
        """L and K: the separate layers (1 for their mean) and the pools."""
        return len(self.layers) if self.separate_layers else 1, len(self.pools)

    @property
    def row_names(self) -> tuple[str, ...]:
        """Names of the L * K rows: `exp_933`, or `layer 8 exp_933` for separate layers."""
        names = tuple(pool.name for pool in self.pools)
        if not self.separate_layers:
            return names
        return tuple(f"layer {layer} {name}" for layer in self.layers for name in names)

    @property
    def label(self) -> str:
        """The label in names of files: `short`, `long-1a2b3c4d`, `custom-1a2b3c4d`.

        A raw preset of the server's default layers and hook has no digits; 8 digits of the stamp
        tell all others apart.
        """
        if self.mode is not None and self.default_target and not self.centered:
            return self.mode
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        digits = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return f"{self.mode or 'custom'}-{digits}"

    def pick(self, layers: Sequence[int], places: Sequence[int]) -> "Stamp":
        """The stamp of a part of such vectors.

        Args:
            layers: The layers of the part, a subset of this stamp's.
            places: Indices of its pools, from 0.
        """
        kept = tuple(self.pools[at] for at in places)
        names = [pool.name for pool in kept]
        presets = {mode: [pool.name for pool in PRESETS[mode]] for mode in get_args(Mode)}
        mode = next((mode for mode, preset in presets.items() if names == preset), None)
        return replace(self, layers=tuple(layers), pools=kept, mode=mode)

    def to_dict(self) -> dict[str, Any]:
        """The stamp as JSON values."""
        record = asdict(self) | {
            "layers": list(self.layers),
            "pools": [asdict(p) for p in self.pools],
        }
        del record["default_target"]
        return record

    def _repr_html_(self) -> str:
        pools = [pool.name for pool in self.pools]
        return record("stamp", {**self.to_dict(), "pools": pools})

    @classmethod
    def complete(cls, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record of any version's `to_dict`, with defaults for the fields it lacks."""
        later = {one.name: one.default for one in fields(cls) if one.default is not MISSING}
        del later["default_target"]
        return later | dict(record)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Self:
        """Parse a record that `to_dict` of this version or an earlier one returned.

        Raises:
            TypeError: it has unknown fields, or lacks some.
            LookupError: it lacks `layers` or `pools`.
        """
        known = cls.complete(record)
        known["layers"] = tuple(known["layers"])
        known["pools"] = tuple(Pool(**pool) for pool in known["pools"])
        return cls(**known)
