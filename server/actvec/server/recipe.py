"""How the documents of one call become vectors: settings, and the mean to centre by."""

from dataclasses import dataclass

from actvec.pooling import MODES
from actvec.server.means.centring import Centring
from actvec.server.model import ModelCard
from actvec.server.pooler import Pools
from actvec.server.step import StepDocument
from actvec.server.tokens import TokenizedDocument
from actvec.server.wire import Settings, encode_vector, vector_stamp
from actvec.v1 import vectors_pb2


@dataclass(frozen=True)
class Recipe:
    """The one place where pools become a vector, raw or centred."""

    settings: Settings
    centring: Centring | None

    def step_document(self, document: TokenizedDocument) -> StepDocument:
        """What the engine is given for a document."""
        return StepDocument(document.ids, pool_tokens=self._tokens_used(document))

    def vector(self, document: TokenizedDocument, pools: Pools) -> vectors_pb2.DocumentVector:
        """The vector of the settings' mode, from a document's pools `[K, D]`.

        Raises:
            EncodingRangeError: a number does not fit the encoding.
        """
        used = self._tokens_used(document)
        if self.centring is not None:
            pools = self.centring(pools, used)
        rows = [MODES["long"].index(pool) for pool in MODES[self.settings.mode]]
        return vectors_pb2.DocumentVector(
            vector=encode_vector(pools[rows].reshape(-1), self.settings.encoding),
            tokens=document.tokens,
            tokens_used=used,
            truncated=document.truncated,
            smallest_count=self.centring.smallest_count(used) if self.centring else 0,
        )

    def stamp(self, card: ModelCard, version: str) -> vectors_pb2.VectorStamp:
        """What the vectors depend on beside the text."""
        stamp = vector_stamp(card, self.settings, version)
        if self.centring is not None:
            stamp.corpus_mean_id = self.centring.record.id
            stamp.corpus_mean_sha256 = self.centring.record.sha256
        return stamp

    def _tokens_used(self, document: TokenizedDocument) -> int:
        """A document longer than the mean: only its last tokens that have one are pooled."""
        tokens = len(document.ids)
        return tokens if self.centring is None else min(tokens, self.centring.max_tokens)
