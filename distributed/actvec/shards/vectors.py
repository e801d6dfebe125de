"""The vectors of documents, computed in this process; those of a shard go to a folder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from actvec.client.bulk import JobProgress, Layout
from actvec.client.bulk.ledger import Ledger
from actvec.client.bulk.options import JobOptions
from actvec.client.documents import DocumentSource
from actvec.client.errors import InvalidArgument
from actvec.client.messages.vectors import decode_stamp, encode_settings
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Document, Failure, Result, Vector
from actvec.server.engine.pools import Pools
from actvec.server.engine.step import StepDocument
from actvec.server.errors import InputError, PicklableError
from actvec.server.model.text.tokenized import TokenizedDocument
from actvec.server.service.messages import vector_stamp
from actvec.server.service.requests import of_document, parse_settings
from actvec.shards.contract import content_of, host_info
from actvec.shards.host import ModelHost


@dataclass(frozen=True)
class _Waiting:
    """A document on its way through a step."""

    document: Document
    index: int
    tokens: TokenizedDocument


class VectorMaker:
    """Computes the vectors of a server with the same model and settings, bit for bit.

    Args:
        host: The model.
        settings: The client's settings. The mean that they name is looked up once, here.

    Attributes:
        stamp: The stamp of all its vectors.

    Raises:
        RequestError: the settings do not fit this model.
        MeanNotFoundError: there is no such mean.
        MeanMismatchError: it is of another model or other settings.
    """

    def __init__(self, host: ModelHost, settings: VectorSettings) -> None:
        self._host = host
        # Through the contract's messages, so that both sides' own code interprets them.
        asked = parse_settings(
            encode_settings(settings), host.card, host.limits, has_bos=host.has_bos
        )
        self._recipe = host.recipe(asked)
        made = vector_stamp(host.card, self._recipe, host.version)
        self.stamp = decode_stamp(made, settings, host_info(host))

    def __call__(self, documents: Iterable[Document | Failure]) -> Iterator[Result]:
        """Yield a result per document, with its number among them, as soon as it is known.

        A document that cannot be read comes as a `Failure`, which is its own result.

        Raises:
            StartupError: a step of the longest document does not fit memory.
            EngineLostError: the engine is lost; the process must end.
            Exception: whatever the iterable raises.
        """
        for waiting, outcome in self._host.steps(self._prepared(documents)):
            if isinstance(waiting, Failure):
                yield waiting
            elif isinstance(outcome, Exception):
                yield _failure(waiting.document, waiting.index, outcome)
            elif outcome is not None:
                yield self._result(waiting, outcome)

    def _prepared(
        self, documents: Iterable[Document | Failure]
    ) -> Iterator[tuple[_Waiting | Failure, StepDocument | None]]:
        for index, item in enumerate(documents):
            if isinstance(item, Failure):
                yield replace(item, index=index), None
                continue
            try:
                tokens = self._host.read(content_of(item), self._recipe.settings)
                step = self._recipe.step_document(tokens)
            except InvalidArgument as error:
                yield Failure.of(error, item.id, index, item.columns), None
            except InputError as error:
                yield _failure(item, index, error), None
            else:
                yield _Waiting(item, index, tokens), step

    def _result(self, waiting: _Waiting, pools: Pools) -> Result:
        try:
            made = self._recipe.vector(waiting.tokens, pools)
        except PicklableError as error:
            return _failure(waiting.document, waiting.index, error)
        values = made.values.reshape(-1)
        values.flags.writeable = False
        return Vector(
            values=values,
            id=waiting.document.id,
            tokens=made.tokens,
            tokens_used=made.tokens_used,
            truncated=made.truncated,
            smallest_count=made.smallest_count,
            stamp=self.stamp,
            text_sha256=waiting.document.digest().hex(),
            index=waiting.index,
            source=waiting.document.source,
            bos=made.bos,
            columns=waiting.document.columns,
        )


def write_vectors(
    host: ModelHost,
    source: DocumentSource,
    folder: str | Path,
    settings: VectorSettings,
    layout: Layout,
    *,
    save_every: float = 60.0,
) -> JobProgress:
    """Compute the vectors of a source into a folder, as `actvec stream --resume` does.

    Existing vectors are not computed again.

    Args:
        host: The model.
        source: The documents, for example a shard of a corpus.
        folder: The folder for the vectors, or a URL, as `VectorJob` takes it.
        settings: The settings of the vectors.
        layout: The layout of the files.
        save_every: Seconds after which to write a file even if it is not full.

    Raises:
        ActvecError: the folder holds something else, or is damaged.
        MeanNotFoundError: there is no such mean.
        MeanMismatchError: it is of another model or other settings.
        EngineLostError: the engine is lost; the process must end.
        OSError: the disk is full, or similar; or a store cannot be reached or written to.
    """
    options = JobOptions.of(source, folder, settings, layout, resume=True, save_every=save_every)
    ledger = Ledger(options)
    with options.naming():
        try:
            ledger.open()
            if not ledger.finished:
                for result in VectorMaker(host, ledger.settings)(ledger.documents()):
                    ledger.keep(result)
                ledger.finish()
        finally:
            ledger.close()
    return ledger.progress


def _failure(document: Document, index: int, error: Exception) -> Failure:
    """Turn an error of the engine or the tokenizer into a document's failure."""
    code = error.code if isinstance(error, PicklableError) else ""
    if isinstance(error, InputError):
        error = of_document(error)
    field = getattr(error, "field", "")
    return Failure(document.id, code or "INTERNAL", str(error), field, index, document.columns)
