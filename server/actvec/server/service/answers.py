"""Counts the answers of calls from their responses, so that no method has to."""

from collections import Counter

import grpc

from actvec.server.rpc.answers import OK, Answers
from actvec.v1.means_pb2 import CorpusMeanCommit, StreamCorpusMeanResponse
from actvec.v1.vectors_pb2 import ExtractVectorResponse, StreamVectorsResponse

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class AnswerCounter:
    """Counts the answers of one call."""

    def __init__(self) -> None:
        # Commits count from the start of a job, perhaps in an earlier call.
        self._committed: CorpusMeanCommit | None = None

    def __call__(self, response: object) -> Answers | None:
        """Count a response; None if it answers no document."""
        if isinstance(response, StreamVectorsResponse):
            return _of_results(response)
        if isinstance(response, ExtractVectorResponse):
            return Answers(Counter({OK: 1}), response.vector.tokens)
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
            answers.documents[OK] += 1
            answers.tokens += result.vector.tokens
    return answers


def _by_code(commit: CorpusMeanCommit) -> Counter[str]:
    documents = Counter({skipped.reason: skipped.documents for skipped in commit.skipped})
    documents[OK] += commit.documents
    return documents
