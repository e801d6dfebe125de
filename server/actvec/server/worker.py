"""A model and the means beside it, without a server: what programs that use Modal directly call."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray

from actvec.pooling import MODES
from actvec.server.config import ModelOptions
from actvec.server.engine import Engine
from actvec.server.engines import load_engine
from actvec.server.errors import RequestError
from actvec.server.means.centring import Centrings
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.store import MeanStore
from actvec.server.model import LoadedModel
from actvec.server.recipe import Recipe
from actvec.server.tokens import TokenizedDocument, Tokenizer, Truncation, resolve_bos
from actvec.server.wire import Settings, model_stamp
from actvec.v1.vectors_pb2 import VECTOR_ENCODING_FLOAT32

Strategy = Literal["short", "long"]
Cut = Literal["error", "start", "end"]

_CUTS = {
    "error": Truncation.ERROR,
    "start": Truncation.KEEP_START,
    "end": Truncation.KEEP_END,
}


class Worker:
    """Makes vectors in this process, one text at a time.

    It has no thread, socket or gRPC object of its own, so that a snapshot of its process can be
    taken once it is made.

    Args:
        engine: What computes.
        loaded: Its model.
        data_dir: Where means are, as the server keeps them.
        replica: Where the data directory is shared with other machines.

    Attributes:
        engine: As given.
        loaded: As given.
        replica: As given.
    """

    def __init__(
        self,
        engine: Engine,
        loaded: LoadedModel,
        data_dir: Path,
        replica: Replica = NO_REPLICA,
    ) -> None:
        self.engine = engine
        self.loaded = loaded
        self.replica = replica
        self._card = engine.card
        self._tokenizer = Tokenizer(
            loaded.tokenizer, engine.card.context, bos=loaded.bos, vocabulary=loaded.vocabulary
        )
        store = MeanStore(data_dir / "means", replica=replica)
        # A name is looked up with every call, for another container may have stored a mean since;
        # what an id names never changes, and is kept.
        self._centrings = Centrings(store, model_stamp(engine.card), engine.card.d_model)

    @classmethod
    def load(cls, options: ModelOptions, data_dir: Path, replica: Replica = NO_REPLICA) -> Self:
        """Load and warm a model.

        Args:
            options: Which, and how it is run.
            data_dir: As of the class.
            replica: As of the class.

        Raises:
            StartupError: the model or an option is not usable.
        """
        engine, loaded = load_engine(options)
        return cls(engine, loaded, data_dir, replica)

    def get_activation_vector(
        self,
        text: str,
        *,
        pooling_strategy: Strategy = "short",
        center: str | None = None,
        truncation: Cut = "error",
        prepend_bos: bool | None = None,
    ) -> dict[str, Any]:
        """The vector of a text, and everything that it depends on.

        Args:
            text: What is read.
            pooling_strategy: `short` (`[D]` numbers) or `long` (`[4 * D]`).
            center: The corpus mean to subtract: an id, a name or `latest`; None for a raw vector.
            truncation: Whether a text over the context is an `error`, or which side is kept.
            prepend_bos: Whether the tokenizer's BOS token comes first; by default where it has one.

        Returns:
            `vector` (float32), `shape`, `d_model`, `layers_used`, `activation_types`,
            `pooling_strategy`, `centered` (whether a mean was subtracted, not whether one was asked
            for), `tokens`, `tokens_used`, `truncated`, and the `stamp`.

        Raises:
            RequestError: an argument does not exist, or the text cannot be tokenized as asked.
            NotFiniteError: its states are not finite.
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it is of another model or other settings.
        """
        if pooling_strategy not in MODES:
            raise RequestError("pooling_strategy", f"is {' or '.join(MODES)}")
        prepend_bos = resolve_bos(prepend_bos, has_bos=self._tokenizer.has_bos, field="prepend_bos")
        document = self._tokenize(text, truncation, prepend_bos=prepend_bos)
        settings = Settings(
            mode=pooling_strategy,
            truncation=_CUTS[truncation],
            encoding=VECTOR_ENCODING_FLOAT32,
            corpus_mean=center or "",
            prepend_bos=prepend_bos,
        )
        centring = self._centrings(center, prepend_bos=prepend_bos) if center else None
        recipe = Recipe(settings, centring)
        (pools,) = self.engine.run([recipe.step_document(document)])
        if isinstance(pools, Exception):
            raise pools
        made = recipe.vector(document, pools)
        vector = np.frombuffer(made.vector.data, dtype="<f4")
        stamp = recipe.stamp(self._card, version("actvec"))
        return {
            "vector": vector,
            "shape": list(vector.shape),
            **self._about(),
            "pooling_strategy": pooling_strategy,
            "centered": centring is not None,
            "tokens": made.tokens,
            "tokens_used": made.tokens_used,
            "truncated": made.truncated,
            "stamp": MessageToDict(stamp, preserving_proto_field_name=True),
        }

    def get_activation_matrix(
        self, text: str, *, truncation: Cut = "error", prepend_bos: bool | None = None
    ) -> dict[str, Any]:
        """The states of a text's tokens before pooling: `matrix` `[T, D]` float32, and the rest.

        Raises:
            RequestError: the text cannot be tokenized as asked.
        """
        document = self._tokenize(text, truncation, prepend_bos=prepend_bos)
        matrix: NDArray[np.float32] = self.engine.states(document.ids)
        return {
            "matrix": matrix,
            "shape": list(matrix.shape),
            **self._about(),
            "tokens": document.tokens,
            "truncated": document.truncated,
        }

    def get_model_info(self) -> dict[str, Any]:
        """What is loaded: model, revision, layers, widths, context, dtype, device, tokenizer."""
        return asdict(self._card) | {"engine": self.engine.name, "actvec": version("actvec")}

    def _tokenize(
        self, text: str, truncation: Cut, *, prepend_bos: bool | None
    ) -> TokenizedDocument:
        if truncation not in _CUTS:
            raise RequestError("truncation", f"is {', '.join(get_args(Cut))}")
        return self._tokenizer(text, _CUTS[truncation], prepend_bos=prepend_bos)

    def _about(self) -> dict[str, Any]:
        return {
            "d_model": self._card.d_model,
            "layers_used": list(self._card.layers),
            "activation_types": [self._card.hook],
        }
