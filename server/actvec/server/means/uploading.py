"""What is believed of a mean that was made elsewhere: what its file shows, and nothing else."""

import re

import numpy as np

from actvec.pooling import MeanAccumulator
from actvec.server.errors import RequestError
from actvec.server.means.format import MOST_DOCUMENTS, MeanTensors
from actvec.v1.means_pb2 import CorpusMean

_SHA256 = re.compile(r"(?:[0-9a-f]{64})?")

# How far below 0 rounding may put a variance, as a fraction of the mean square.
_ROUNDING = 1e-6


def uploaded_record(tensors: MeanTensors) -> CorpusMean:
    """The record of an uploaded mean: its file's own, held to its tensors.

    Documents and tokens are those of the counts, 0 without them. `corpus_sha256` is dropped: nobody
    here has seen the documents.

    Raises:
        RequestError: the file's record contradicts its tensors, or a number in it cannot be.
    """
    claimed = tensors.record
    if not _SHA256.fullmatch(claimed.corpus_sha256):
        raise RequestError("chunk", "has a record whose corpus_sha256 is not 64 hexadecimal digits")
    _check_documents(tensors)
    _check_variance(tensors)
    if tensors.accumulator is not None:
        _check_squares(tensors.accumulator)
    record = CorpusMean()
    record.CopyFrom(claimed)
    record.ClearField("corpus_sha256")
    mean, counts, sums = tensors.mean, tensors.counts, tensors.accumulator
    record.max_tokens, record.d_model = mean.shape
    record.documents = 0 if counts is None else int(counts[0])
    record.tokens = 0 if counts is None else int(counts.sum())
    record.has_counts = counts is not None
    record.has_variance = sums is not None and sums.squares is not None
    return record


def _check_documents(tensors: MeanTensors) -> None:
    """Hold the numbers of documents and tokens that a record claims to the counts.

    Raises:
        RequestError: they differ, or are more than there can be.
    """
    claimed, counts = tensors.record, tensors.counts
    numbers = [claimed.documents, *(entry.documents for entry in claimed.skipped)]
    if max(numbers) > MOST_DOCUMENTS:
        raise RequestError(
            "chunk",
            f"has a record of {max(numbers)} documents; a mean is of at most {MOST_DOCUMENTS}",
        )
    if counts is None:
        return
    for name, says, shown in (
        ("documents", claimed.documents, int(counts[0])),
        ("tokens", claimed.tokens, int(counts.sum())),
    ):
        # 0 is unknown.
        if says not in {0, shown}:
            raise RequestError(
                "chunk", f"has a record of {says} {name}, and counts of {shown}: it was altered"
            )


def _check_variance(tensors: MeanTensors) -> None:
    """Hold `corpus_variance` to what a variance is: nothing here reads it, but other tools do.

    Raises:
        RequestError: it is none.
    """
    variance, shape = tensors.variance, tensors.mean.T.shape
    if variance is None:
        return
    if (
        variance.dtype != np.float32
        or variance.shape != shape
        or not np.isfinite(variance).all()
        or (variance < 0).any()
    ):
        raise RequestError(
            "chunk",
            f"has a corpus_variance that is not finite numbers from 0 on, float32 {list(shape)}",
        )


def _check_squares(sums: MeanAccumulator) -> None:
    """See that sums of squares can be those of numbers with these sums.

    Raises:
        RequestError: they cannot.
    """
    if sums.squares is None:
        return
    counts = sums.counts[:, None]
    with np.errstate(over="ignore"):  # no square_sums are large enough for such sums
        spread = sums.squares / counts - (sums.sums / counts) ** 2
    if not (spread >= -_ROUNDING * sums.squares / counts).all():
        raise RequestError(
            "chunk", "has square_sums that are negative, or smaller than its sums and counts allow"
        )
