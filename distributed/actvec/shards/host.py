"""A model and a store of means, in this process.

No thread, socket or object of gRPC exists before the first shard, so a snapshot of the process can
be taken once the model is loaded.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Self

from actvec.server.config import Limits, ModelOptions, ServerConfig
from actvec.server.engine.load import load_engine
from actvec.server.engine.packed import Engine
from actvec.server.errors import InputError
from actvec.server.extraction.contents import Content
from actvec.server.extraction.reading import Reader
from actvec.server.extraction.recipe import Recipe
from actvec.server.extraction.settings import Settings
from actvec.server.means.centering import Centerings
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.store import MeanStore
from actvec.server.model.loading import LoadedModel
from actvec.server.model.text.tokenized import TokenizedDocument
from actvec.server.model.text.tokenizer import Tokenizer
from actvec.shards.steps import Steps


class ModelHost:
    """A model that computes in this process, for one caller at a time.

    Args:
        engine: The engine.
        loaded: Its model.
        data_dir: The data directory, with means as a server keeps them.
        replica: Where to share the data directory with other machines.
        limits: Limits; only `step_tokens`, `text_bytes` and `commit_seconds` apply here.

    Attributes:
        engine: As given.
        loaded: As given.
        replica: As given.
        limits: As given.
        card: The engine's model.
        version: The version of actvec in stamps.
        steps: Computes documents.
    """

    def __init__(
        self,
        engine: Engine,
        loaded: LoadedModel,
        data_dir: Path,
        replica: Replica = NO_REPLICA,
        *,
        limits: Limits = ServerConfig.limits,
    ) -> None:
        self.engine = engine
        self.loaded = loaded
        self.replica = replica
        self.limits = limits
        self.card = engine.card
        self.version = version("actvec")
        self.steps = Steps(engine, step_tokens=limits.step_tokens)
        self._tokenizer = Tokenizer(
            loaded.tokenizer, engine.card.context, bos=loaded.bos, vocabulary=loaded.vocabulary
        )
        self._reader = Reader(self._tokenizer, limits.text_bytes)
        self._store = MeanStore(data_dir / "means", replica=replica)
        # Each call looks a name up again, since another process may have stored a mean; an id names
        # one content forever, so its mean is cached.
        self._centerings = Centerings(self._store, engine.card.stamp, engine.card.d_model)

    @classmethod
    def load(
        cls,
        options: ModelOptions,
        data_dir: Path,
        replica: Replica = NO_REPLICA,
        *,
        limits: Limits = ServerConfig.limits,
    ) -> Self:
        """Load and check a model.

        Args:
            options: The model, and how to run it.
            data_dir: See the class.
            replica: See the class.
            limits: See the class.

        Raises:
            StartupError: the model or an option is unusable.
        """
        engine, loaded = load_engine(options)
        return cls(engine, loaded, data_dir, replica, limits=limits)

    @property
    def has_bos(self) -> bool:
        """Whether the tokenizer has a BOS token."""
        return self._tokenizer.has_bos

    def recipe(self, settings: Settings) -> Recipe:
        """Combine settings with the mean that they name at present.

        Raises:
            MeanNotFoundError: there is no such mean.
            MeanMismatchError: it is of another model or other settings.
            MeanCorruptError: its file was altered.
        """
        name, centering = settings.corpus_mean, None
        if name:
            centering = self._centerings(name, settings.target, prepend_bos=settings.prepend_bos)
        return Recipe(settings, centering)

    def add_mean(self, name: str, content: bytes) -> str:
        """Store a mean's file beside the model, and return its id.

        Raises:
            InputError: it is not a mean's file, or has another width.
            StorageError: the disk is full or cannot be written.
        """
        return self._store.upload(name, content, self.card.d_model).id

    def read(self, content: Content, settings: Settings) -> TokenizedDocument:
        """Return the tokens of a document, and of its spans if a pool needs them.

        Raises:
            InputError: it cannot be read as requested, or exceeds the limit.
        """
        read = self._reader(content, settings)
        if isinstance(read, InputError):
            raise read
        return read
