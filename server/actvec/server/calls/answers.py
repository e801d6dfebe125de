"""What calls answer, counted from their responses: no method needs to keep count."""

from collections import Counter
from dataclasses import dataclass, field

import grpc

from actvec.v1.means_pb2 import CorpusMeanCommit, StreamCorpusMeanResponse
from actvec.v1.vectors_pb2 import ExtractVectorResponse, StreamVectorsResponse

_OK = grpc.StatusCode.OK.name
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass
class Answers:
    """What was answered.

    Attributes:
        documents: How many, by the name of their code: `OK` for those with a vector or in a mean.
        tokens: Tokens of those that are `OK`, before any truncation for vectors.
        commits: Commits of a mean that the client was told of.
    """

    documents: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    commits: int = 0

    def add(self, more: "Answers") -> None:
        """Take over what was answered since."""
        self.documents += more.documents
        self.tokens += more.tokens
        self.commits += more.commits

    @property
    def failed(self) -> int:
        """Documents that are not `OK`."""
        return self.documents.total() - self.documents[_OK]


class AnswerCounter:
    """Counts the answers of one call."""

    def __init__(self) -> None:
        # Commits count from the beginning of a job, which may be in an earlier call.
        self._committed: CorpusMeanCommit | None = None

    def count(self, response: object) -> Answers | None:
        """What a response answers; None for nothing that is counted."""
        if isinstance(response, StreamVectorsResponse):
            return _of_results(response)
        if isinstance(response, ExtractVectorResponse):
            return Answers(Counter({_OK: 1}), response.vector.tokens)
        if isinstance(response, StreamCorpusMeanResponse):
            return self._of_mean(response)
        return None

    def _of_mean(self, response: StreamCorpusMeanResponse) -> Answers | None:
        event = response.WhichOneof("event")
        if event == "opened":
            self._committed = response.opened
        if event != "commit" or self._committed is None:
            return None
        before, self._committed = self._committed, response.commit
        return Answers(
            _by_code(self._committed) - _by_code(before),
            self._committed.tokens - before.tokens,
            commits=1,
        )


def _of_results(response: StreamVectorsResponse) -> Answers:
    answers = Answers()
    for result in response.results:
        if result.HasField("error"):
            answers.documents[_NAMES.get(result.error.code, "UNKNOWN")] += 1
        else:
            answers.documents[_OK] += 1
            answers.tokens += result.vector.tokens
    return answers


def _by_code(commit: CorpusMeanCommit) -> Counter[str]:
    documents = Counter({skipped.reason: skipped.documents for skipped in commit.skipped})
    documents[_OK] += commit.documents
    return documents
