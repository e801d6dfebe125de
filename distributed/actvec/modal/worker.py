"""The model of a container on Modal, and its answers to programs that call Modal themselves.

Answers hold built-in types only: a caller may have `modal` installed and nothing else. The module
imports torch, so only containers can use it; and nothing of gRPC, since a snapshot is taken after a
worker is made.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from google.protobuf.json_format import MessageToDict

from actvec.modal.volume import Site
from actvec.pooling import MODES
from actvec.server.config import AccessOptions, Limits, ModelOptions, ServerConfig
from actvec.server.errors import RequestError
from actvec.server.extraction.contents import TextContent
from actvec.server.extraction.settings import Settings
from actvec.server.model.stamp import Truncation
from actvec.server.model.text.tokenized import TokenizedDocument
from actvec.server.model.text.tokenizer import resolve_bos
from actvec.shards.host import ModelHost

Strategy = Literal["short", "long"]
Cut = Literal["error", "start", "end"]

# A commit moves a checkpoint to the volume.
_LIMITS = Limits(commit_seconds=30.0)


class Worker(ModelHost):
    """A model that answers with dictionaries, one text at a time."""

    def get_activation_vector(
        self,
        text: str,
        *,
        pooling_strategy: Strategy = "short",
        center: str | bool | None = None,
        truncation: Cut = "error",
        prepend_bos: bool | None = None,
    ) -> dict[str, Any]:
        """Return the vector of a text, and everything that it depends on.

        Args:
            text: The text.
            pooling_strategy: `short` (`[D]` numbers) or `long` (`[4 * D]`).
            center: The corpus mean to subtract: an id, a name or `latest`, which True means too;
                None or False for a raw vector.
            truncation: Whether a text beyond the context is an `error`, or which side to keep.
            prepend_bos: Whether the tokenizer's BOS token comes first; by default if it has one.

        Returns:
            `vector` (a list of numbers), `shape`, `d_model`, `layers_used`, `activation_types`,
            `pooling_strategy`, `centered` (whether a mean was subtracted), `tokens`, `tokens_used`,
            `truncated`, `bos`, `smallest_count` (of documents behind a used position of the mean),
            and the `stamp`.

        Raises:
            RequestError: an argument is unknown, or the text cannot be tokenized as requested.
            NotFiniteError: its states are not finite.
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it is of another model or other settings.
        """
        from actvec.server.service.messages import vector_stamp  # noqa: PLC0415 - gRPC

        settings = self._settings(pooling_strategy, center, truncation, prepend_bos)
        document = self._read(text, settings)
        recipe = self.recipe(settings)
        (pools,) = self.engine.run([recipe.step_document(document)])
        if isinstance(pools, Exception):
            raise pools
        made = recipe.vector(document, pools)
        vector = made.values.reshape(-1)
        stamp = vector_stamp(self.card, recipe, self.version)
        return {
            "vector": vector.tolist(),
            "shape": list(vector.shape),
            **self._about(),
            "pooling_strategy": pooling_strategy,
            "centered": recipe.centering is not None,
            "tokens": made.tokens,
            "tokens_used": made.tokens_used,
            "truncated": made.truncated,
            "bos": made.bos,
            "smallest_count": made.smallest_count,
            "stamp": MessageToDict(stamp, preserving_proto_field_name=True),
        }

    def get_activation_matrix(
        self, text: str, *, truncation: Cut = "error", prepend_bos: bool | None = None
    ) -> dict[str, Any]:
        """Return a text's states before pooling: `matrix`, T lists of D numbers, and more.

        Raises:
            RequestError: the text cannot be tokenized as requested.
        """
        settings = self._settings("long", None, truncation, prepend_bos)
        document = self._read(text, settings)
        matrix = self.engine.states(document.ids)
        return {
            "matrix": matrix.tolist(),
            "shape": list(matrix.shape),
            **self._about(),
            "tokens": document.tokens,
            "truncated": document.truncated,
        }

    def get_model_info(self) -> dict[str, Any]:
        """Describe the loaded model: layers, widths, context, dtype, device, tokenizer."""
        return asdict(self.card) | {"engine": self.engine.name, "actvec": self.version}

    def find_corpus_mean(self, center: str | bool) -> str:
        """Return the present id of the corpus mean with a name, or of `latest`.

        Raises:
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it is of another model or other settings.
        """
        centering = self.recipe(self._settings("short", center, "error", None)).centering
        return centering.record.id if centering is not None else ""

    def _settings(
        self,
        pooling_strategy: str,
        center: str | bool | None,
        truncation: str,
        prepend_bos: bool | None,
    ) -> Settings:
        if not isinstance(center, str | bool | None):
            raise RequestError(
                "center",
                f"is of type {type(center).__name__}; use a corpus mean's id or name, 'latest',"
                " True for 'latest', or None",
            )
        if not isinstance(prepend_bos, bool | None):
            raise RequestError("prepend_bos", f"is {prepend_bos!r}; use True, False or None")
        for name, value, known in (
            ("pooling_strategy", pooling_strategy, list(MODES)),
            ("truncation", truncation, get_args(Cut)),
        ):
            if value not in known:
                raise RequestError(name, f"is {value!r}; use one of: {', '.join(known)}")
        return Settings(
            pools=MODES[pooling_strategy],
            target=self.card.target,
            truncation=Truncation(truncation),
            corpus_mean="latest" if center is True else center or "",
            prepend_bos=resolve_bos(prepend_bos, has_bos=self.has_bos),
        )

    def _read(self, text: str, settings: Settings) -> TokenizedDocument:
        if not isinstance(text, str):
            raise RequestError("text", f"is of type {type(text).__name__}; use a str")
        return self.read(TextContent(text), settings)

    def _about(self) -> dict[str, Any]:
        return {
            "d_model": self.card.d_model,
            "layers_used": list(self.card.layers),
            "activation_types": [self.card.hook],
        }


def make_worker(model: str, site: Site, device: str = "auto") -> Worker:
    """Load the model on a device, with the means of the volume.

    Raises:
        StartupError: the model or the device does not exist.
    """
    options = ModelOptions(model=model, device=device)
    return Worker.load(options, site.local, site.replica(), limits=_LIMITS)


def server_config(
    model: str,
    data_dir: Path,
    *,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 0,
) -> ServerConfig:
    """Configure a container's server. Secrets are read here, not when a snapshot is taken."""
    return ServerConfig(
        model=ModelOptions(model=model, device=device),
        limits=_LIMITS,
        access=AccessOptions(token=os.environ.get("ACTVEC_TOKEN")),
        host=host,
        port=port,
        data_dir=data_dir,
        # Modal kills a container 30 seconds after it asks it to end.
        grace=10.0,
    )
