"""The settings of a job: what its mean depends on."""

from dataclasses import dataclass, replace

from actvec.pooling import MeanAccumulator, PoolTokens
from actvec.server.engine.step import DeviceSums, EngineSums, StepDocument
from actvec.server.engine.weighing import weights_of
from actvec.server.jobs.checkpoint import JobState
from actvec.server.means.record import MeanRecord
from actvec.server.means.record_json import canonical
from actvec.server.model.stamp import ModelStamp
from actvec.server.model.target import Target
from actvec.server.model.text.tokenized import TokenizedDocument

# Larger sums are committed proportionally less often.
_COMMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class JobSettings:
    """Everything that a job's mean depends on; the same settings reopen the job.

    Attributes:
        job: The job's name.
        record: The start of the mean's record: its name, the model, the settings.
    """

    job: str
    record: MeanRecord

    @property
    def target(self) -> Target:
        """The layers and hook to sum."""
        model = self.record.model or ModelStamp()
        return Target(model.layers, model.hook, model.separate_layers)

    @property
    def canonical(self) -> str:
        """All settings, as JSON."""
        # The version may change during a job, the numbers may not. The template is the model's.
        return canonical(
            replace(self.record, actvec_version="", chat_template_sha256="", chat_template_date="")
        )

    @property
    def layers(self) -> int | None:
        """Number of layers summed separately; None for their mean."""
        return self.target.rows if self.target.separate else None

    def sums_bytes(self, positions: int) -> int:
        """Bytes of the sums of documents of up to `positions` tokens."""
        kinds = 2 if self.record.has_variance else 1
        return 8 * kinds * self.target.rows * positions * self.record.d_model

    def commit_seconds(self, committed: JobState, seconds: float) -> float:
        """Return the seconds between two commits; each writes all sums, and large ones take longer.

        Args:
            committed: The durable state.
            seconds: Seconds between commits of small sums.
        """
        size = self.sums_bytes(committed.accumulator.max_tokens)
        return seconds * max(1.0, size / _COMMIT_BYTES)

    def device_sums(self, device: str, longest: int) -> DeviceSums:
        """Empty sums on an engine's device, for documents of up to `longest` tokens."""
        width, variance = self.record.d_model, self.record.has_variance
        return DeviceSums(width, device, variance=variance, longest=longest, layers=self.layers)

    def step_document(
        self, document: TokenizedDocument, sums: DeviceSums | EngineSums
    ) -> StepDocument:
        """Describe a document of the mean for the engine."""
        weights = weights_of((), PoolTokens(len(document.ids)))
        return StepDocument(document.ids, weights, self.target, sums)

    def record_of(self, progress: JobState) -> MeanRecord:
        """The record of the mean of these documents, without the fields that its sums determine."""
        corpus = progress.corpus.hex()
        return replace(self.record, corpus_sha256=corpus, skipped=progress.skipped)

    def empty(self) -> MeanAccumulator:
        """Empty sums."""
        return MeanAccumulator(
            self.record.d_model, variance=self.record.has_variance, layers=self.layers
        )
